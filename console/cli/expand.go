package cli

import (
	"slices"
	"strings"

	"ballast/configs/schema"
)

// expand makes abbreviated keywords of the configuration whole. Names and
// values stay as they are, and so does what is no beginning of a keyword.
func (c *call) expand(words []string) ([]string, error) {
	out, _, _, err := c.follow(words)
	return out, err
}

// follow is expand that tells into which block the words lead. whole: they are
// heads of blocks and nothing else.
func (c *call) follow(words []string) (out []string, block string, whole bool, err error) {
	if c.s.editing != nil {
		for _, head := range c.s.editing.at {
			if k := schema.Lookup(block, keyword(head)); k != nil {
				block = k.Opens
			}
		}
	}
	out = slices.Clone(words)
	for i := 0; i < len(out); {
		if strings.HasPrefix(out[i], "@") { // for one box only
			i++
			continue
		}
		if strings.HasPrefix(block, "list:") {
			return out, block, false, nil
		}
		name, number := numbered(out[i])
		k := schema.Lookup(block, name)
		if k == nil {
			long, err := longer(name, schema.Words(block))
			if err != nil {
				return nil, "", false, usagef("%q %w", shown(out[i]), err)
			}
			if long == "" {
				return out, block, false, nil
			}
			out[i] = long + number
			k = schema.Lookup(block, long)
		}
		if k.Opens == "" {
			return out, block, false, nil
		}
		n, ok := k.HeadWords(append([]string{k.Name}, out[i+1:]...))
		if !ok {
			return out, block, false, nil
		}
		i += 1 + n
		block = k.Opens
	}
	return out, block, true, nil
}

// numbered splits "url[2]".
func numbered(word string) (name, number string) {
	if i := strings.LastIndexByte(word, '['); i > 0 && strings.HasSuffix(word, "]") {
		return word[:i], word[i:]
	}
	return word, ""
}

// keyword is the first word of a block's head.
func keyword(head string) string {
	for _, w := range strings.Fields(head) {
		if !strings.HasPrefix(w, "@") {
			name, _ := numbered(w)
			return name
		}
	}
	return ""
}

// longer finds the one keyword that word begins; empty: there is none.
func longer(word string, keywords []string) (string, error) {
	var found []string
	for _, k := range keywords {
		if word != "" && strings.HasPrefix(k, word) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	_, err := pick(word, found)
	return "", err
}
