// Package manual makes the reference manual of the configuration language from
// the rows of the schema: a page a block, with its keywords, an example, and
// links to the blocks around it. The pages are kept in docs/reference; a test
// fails when they are not what the rows say.
package manual

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ballast/configs/schema"
)

//go:embed examples
var examples embed.FS

// lists are the blocks whose lines are no keywords: the page that describes
// the lines, or their grammar.
var lists = map[string]struct{ page, grammar string }{
	"list:address": {page: "address-line"},
	"list:route":   {page: "route-line"},
	"list:rule":    {page: "rule-line"},
	"list:track":   {grammar: "NAME [weight N [reverse]]"},
	"list:peer":    {grammar: "ADDRESS [min_ttl N] [max_ttl N]"},
	"list:delay":   {grammar: "IF DOWN [UP]"},
	"list:word":    {grammar: "NAME …"},
}

// lead is said at the head of a page where the help of the row that opens the block is not enough.
var lead = map[string]string{
	"": "What may stand outside of every block. The language itself (conditions, parameters, sequences, includes, quotes) " +
		"is described in [configuration](../configuration.md#the-language).",
	"address-line": "A line of `virtual_ipaddress`, `virtual_ipaddress_excluded` and `static_ipaddress`: an address, and any of these words behind it.",
	"route-line":   "A line of `virtual_routes` and `static_routes`, in the words of `ip route`: a destination, or `default`, with any of these words.",
	"rule-line":    "A line of `virtual_rules` and `static_rules`, in the words of `ip rule`. A line with a fault is left out as a whole: half a rule would send traffic elsewhere.",
}

// exampleOf names the example of blocks that share one.
var exampleOf = map[string]string{
	"": "top-level", "authentication": "vrrp_instance", "url": "HTTP_GET", "smtp_host": "SMTP_CHECK", "login": "system", "box": "netboot",
}

// Page is the name of a block's page, without its ending.
func Page(block string) string {
	if block == "" {
		return "top-level"
	}
	return block
}

func title(block string) string {
	switch block {
	case "":
		return "Top level"
	case "address-line", "route-line", "rule-line":
		return strings.ToUpper(block[:1]) + strings.Replace(block[1:], "-", " ", 1) + "s"
	}
	return block
}

// Blocks are the blocks that have a page, in the order of the rows.
func Blocks() []string {
	out := []string{""}
	for i := range schema.Keywords() {
		k := &schema.Keywords()[i]
		for _, b := range append(slices.Clone(k.In), k.Opens) {
			if b != "" && !strings.HasPrefix(b, "list:") && !slices.Contains(out, b) {
				out = append(out, b)
			}
		}
	}
	return out
}

// rows are the keywords of a block.
func rows(block string) (header, rest []*schema.Keyword) {
	for i := range schema.Keywords() {
		k := &schema.Keywords()[i]
		switch {
		case len(k.In) == 0 && k.Block == block:
			header = append(header, k)
		case slices.Contains(k.In, block):
			rest = append(rest, k)
		}
	}
	return header, rest
}

// openers are the rows that open a block.
func openers(block string) (out []*schema.Keyword) {
	for i := range schema.Keywords() {
		k := &schema.Keywords()[i]
		if k.Opens == block || lists[k.Opens].page == block && k.Opens != "" {
			out = append(out, k)
		}
	}
	return out
}

// Pages are the files of the manual, by name.
func Pages() (map[string]string, error) {
	out := map[string]string{"README.md": index(), "keywords.md": alphabet(), "without-effect.md": without()}
	for _, b := range Blocks() {
		text, err := page(b)
		if err != nil {
			return nil, err
		}
		out[Page(b)+".md"] = text
	}
	return out, nil
}

const made = "<!-- Made from configs/schema by \"make reference\"; change it there. -->\n\n"

func link(block string) string { return "[" + title(block) + "](" + Page(block) + ".md)" }

func links(blocks []string) string {
	var out []string
	for _, b := range blocks {
		l := link(b)
		if b == "" {
			l = "[the top level](top-level.md)"
		}
		out = append(out, l)
	}
	if n := len(out); n > 1 {
		return strings.Join(out[:n-1], ", ") + " and " + out[n-1]
	}
	return strings.Join(out, "")
}

// cell is text of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

func page(block string) (string, error) {
	var b strings.Builder
	b.WriteString(made)
	fmt.Fprintf(&b, "# %s\n\n", title(block))
	if text := lead[block]; text != "" {
		b.WriteString(text + "\n\n")
	}
	for _, k := range openers(block) {
		if lead[block] == "" {
			fmt.Fprintf(&b, "`%s` in %s: %s\n\n", k.Usage(), links(k.In), k.Help+".")
		}
	}
	header, rest := rows(block)
	var works, noEffect, planned []*schema.Keyword
	for _, k := range rest {
		switch k.Status {
		case schema.NoEffect:
			noEffect = append(noEffect, k)
		case schema.Planned:
			planned = append(planned, k)
		default:
			works = append(works, k)
		}
	}
	if len(header)+len(works) > 0 {
		b.WriteString("| keyword | arguments | default | meaning |\n|---|---|---|---|\n")
		for _, k := range append(header, works...) {
			table(&b, block, k)
		}
		b.WriteByte('\n')
	}
	reasons(&b, "## Accepted without effect", noEffect)
	reasons(&b, "## Accepted, not implemented in this release", planned)
	text, err := Example(block)
	if err != nil {
		return "", err
	}
	b.WriteString("## Example\n\n")
	for l := range strings.Lines(text) {
		b.WriteString("    " + l)
	}
	b.WriteString("\n[All blocks](README.md), [all keywords](keywords.md)\n")
	return b.String(), nil
}

// table writes the line of a row, or one for each of its words.
func table(b *strings.Builder, block string, k *schema.Keyword) {
	line := func(names, args, def, help string) {
		if k.Since != "" {
			release := "of keepalived " + k.Since
			if k.Since == "HEAD" {
				release = "not in a release of keepalived yet"
			}
			help += " (" + release + ")"
		}
		if k.Class == 'O' && !own(block) {
			help += " (the appliance's own)"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", names, code(args), cell(def), cell(help))
	}
	if words := k.Words(); words != nil {
		for _, w := range words {
			line(code(w.Name), w.Grammar(), w.Default, w.Help)
		}
		return
	}
	name := code(k.Name)
	if strings.HasPrefix(k.Name, "(") {
		name = strings.Trim(k.Name, "()")
	}
	for _, a := range k.Aliases {
		name += ", " + code(a)
	}
	help, grammar := k.Help, k.Grammar()
	if l, is := lists[k.Opens]; is {
		if l.page != "" {
			help += "; see " + link(l.page)
			grammar = strings.Replace(grammar, "…", "LINE …", 1)
		} else {
			grammar = strings.Replace(grammar, "…", l.grammar, 1)
		}
	} else if k.Opens != "" {
		help += "; see " + link(k.Opens)
	}
	line(name, grammar, k.Default, help)
}

// own tells the appliance's own blocks.
func own(block string) bool {
	return block == "" || slices.ContainsFunc(openers(block), func(k *schema.Keyword) bool { return k.Class == 'O' })
}

func reasons(b *strings.Builder, heading string, list []*schema.Keyword) {
	if len(list) == 0 {
		return
	}
	b.WriteString(heading + "\n\n| keyword | arguments | meaning | why |\n|---|---|---|---|\n")
	for _, k := range list {
		for i, n := range append([]string{k.Name}, k.Aliases...) {
			w := k.Word(n)
			help := w.Help
			if i > 0 && k.Words() == nil {
				help = "another name of `" + k.Name + "`"
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(n), code(schemaGrammar(k, w)), cell(help), cell(k.Reason))
		}
	}
	b.WriteByte('\n')
}

func schemaGrammar(k *schema.Keyword, w schema.Word) string {
	if k.Opens == "" {
		return w.Grammar()
	}
	grammar := k.Grammar()
	if l := lists[k.Opens].grammar; l != "" {
		grammar = strings.Replace(grammar, "…", l, 1)
	}
	return grammar
}

// Example is a configuration that shows a block. It loads, says a test.
func Example(block string) (string, error) {
	name := block
	if other, is := exampleOf[block]; is {
		name = other
	}
	text, err := examples.ReadFile("examples/" + name + ".conf")
	if err != nil {
		return "", fmt.Errorf("block %q has no example: add configs/schema/manual/examples/%s.conf: %w", block, name, err)
	}
	return string(text), nil
}

func index() string {
	var b strings.Builder
	b.WriteString(made + "# Reference of the configuration\n\n")
	b.WriteString("Every block with its keywords: arguments, ranges, defaults, what they mean here. [configuration](../configuration.md) tells how to use them.\n\n" +
		"- " + link("") + "\n- [All keywords](keywords.md), by the alphabet\n- [Keywords without effect](without-effect.md), and why\n\n")
	part := func(heading string, want func(string) bool) {
		b.WriteString("## " + heading + "\n\n| block | in | what it is |\n|---|---|---|\n")
		for _, block := range Blocks() {
			if block == "" || !want(block) {
				continue
			}
			for i, k := range openers(block) {
				if lists[k.Opens].page != "" {
					if i == 0 {
						fmt.Fprintf(&b, "| %s | | %s |\n", link(block), cell(lead[block]))
					}
					continue
				}
				name := link(block)
				if k.Name != block {
					name = "[" + k.Name + "](" + Page(block) + ".md)"
				}
				fmt.Fprintf(&b, "| %s | %s | %s |\n", name, links(k.In), cell(k.Help))
			}
		}
		b.WriteByte('\n')
	}
	part("Blocks of keepalived", func(block string) bool { return !own(block) })
	part("Blocks of the appliance", own)
	return strings.TrimSuffix(b.String(), "\n")
}

// alphabet lists all words with the pages that they are on.
func alphabet() string {
	at := map[string][]string{}
	for _, block := range Blocks() {
		for _, w := range schema.Words(block) {
			at[w] = append(at[w], block)
		}
	}
	var b strings.Builder
	b.WriteString(made + "# All keywords\n\n| keyword | in |\n|---|---|\n")
	words := slices.SortedFunc(maps.Keys(at), func(a, b string) int {
		if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, w := range words {
		fmt.Fprintf(&b, "| `%s` | %s |\n", w, links(at[w]))
	}
	return b.String()
}

// without lists what does nothing, by reason.
func without() string {
	var b strings.Builder
	b.WriteString(made + "# Keywords without effect\n\nThey are read and checked, and change nothing, because there is nothing for them to do on an appliance. `check` says so in a note.\n")
	for _, part := range []struct {
		status schema.Status
		text   string
	}{
		{schema.NoEffect, ""},
		{schema.Planned, "\n## Not implemented in this release\n\n`check` warns of them.\n"},
	} {
		var order []string
		words := map[string][]string{}
		for i := range schema.Keywords() {
			k := &schema.Keywords()[i]
			if k.Status != part.status {
				continue
			}
			if words[k.Reason] == nil {
				order = append(order, k.Reason)
			}
			names := "`" + strings.Join(append([]string{k.Name}, k.Aliases...), "`, `") + "`"
			words[k.Reason] = append(words[k.Reason], names+" in "+links(k.In))
		}
		if len(order) == 0 {
			continue
		}
		b.WriteString(part.text + "\n| keywords | why |\n|---|---|\n")
		for _, r := range order {
			fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(grouped(words[r]), "; "), cell(r))
		}
	}
	return b.String()
}

// grouped says a block once for all words of it that follow one another.
func grouped(words []string) (out []string) {
	for _, w := range words {
		names, in, _ := strings.Cut(w, " in ")
		if n := len(out); n > 0 {
			if before, is := strings.CutSuffix(out[n-1], " in "+in); is {
				out[n-1] = before + ", " + names + " in " + in
				continue
			}
		}
		out = append(out, w)
	}
	return out
}
