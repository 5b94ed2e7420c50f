package cli

import (
	"fmt"
	"slices"
	"strings"

	"ballast/configs/schema"
)

// mostKeywords bounds what help tells of a word that stands in many blocks.
const mostKeywords = 8

// keywordHelp is what the manual says of a keyword of the configuration, behind
// the block that it stands in where that was said: "vrrp_instance priority".
// Empty: there is none.
func keywordHelp(words []string) string {
	var b strings.Builder
	n := 0
	for _, k := range keywordRows(words) {
		if n++; n > mostKeywords {
			continue
		}
		fmt.Fprintf(&b, "%s\n  %s\n", k.Usage(), k.Help)
		line := func(name, text string) {
			if text != "" {
				fmt.Fprintf(&b, "  %-9s %s\n", name, text)
			}
		}
		line("names", strings.Join(k.Aliases, ", "))
		var in []string
		for _, block := range k.In {
			if block == "" {
				block = "top level"
			}
			in = append(in, block)
		}
		line("in", strings.Join(in, ", "))
		line("default", k.Default)
		line("since", k.Since)
		if k.Status != schema.Works {
			line("status", strings.TrimSuffix(k.Status.String()+": "+k.Reason, ": "))
		}
	}
	if n > mostKeywords {
		fmt.Fprintf(&b, "and %d more: write the block before it, for example: help vrrp_instance %s\n", n-mostKeywords, shown(words[len(words)-1]))
	}
	return b.String()
}

func keywordRows(words []string) (rows []*schema.Keyword) {
	last := words[len(words)-1]
	all := schema.Keywords()
	for i := range all {
		k := &all[i]
		if len(k.In) == 0 || k.Name != last && !slices.Contains(k.Aliases, last) {
			continue
		}
		if len(words) > 1 {
			around := schema.Lookup("", words[0])
			for _, w := range words[1 : len(words)-1] {
				if around != nil {
					around = schema.Lookup(around.Opens, w)
				}
			}
			if block := words[len(words)-2]; !slices.Contains(k.In, block) && (around == nil || around.Opens == "" || !slices.Contains(k.In, around.Opens)) {
				continue
			}
		}
		rows = append(rows, k)
	}
	return rows
}
