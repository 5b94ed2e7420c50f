package bind

import (
	"path"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/configs/syntax"
)

// command reads a command line. Words behind a quoted command are its user and
// group, except where args says that they are arguments (vrrp_script, and
// MISC_CHECK).
func (b *binder) command(n *syntax.Node, args bool) model.Command {
	raw := strings.TrimSpace(strings.TrimPrefix(n.Raw, n.Words[0].Text))
	words, ok := syntax.SplitCommand(raw)
	if !ok {
		b.fail(n.ArgPos(0), "close the quote", "%s: a quote is not closed", n.Name())
		return model.Command{}
	}
	if len(words) == 0 || strings.TrimSpace(words[0]) == "" {
		b.fail(n.Pos, "write "+n.Name()+` "COMMAND ARGUMENTS"`, "%s: the command is empty", n.Name())
		return model.Command{}
	}
	text := strings.TrimSpace(words[0])
	argv, ok := syntax.SplitCommand(words[0])
	if !ok {
		b.fail(n.ArgPos(0), "close the quote inside the command", "%s: a quote inside the command is not closed", n.Name())
		return model.Command{}
	}
	if len(words) > 1 && args {
		argv = append(argv, words[1:]...)
		text = raw
	} else if len(words) > 1 {
		user := words[1]
		if !plausibleUser(user) || len(words) > 3 {
			b.warn(n.ArgPos(1), "quote the whole: "+n.Name()+" \""+strings.Join(words, " ")+"\"",
				"%s: %s is read as the user to run as, and there is no such user; the command is left out, as keepalived does", n.Name(), quote(user))
			b.mapped(n, "left out: no such user")
			return model.Command{}
		}
		b.user(n, user)
	}
	if shellish(text, argv) {
		return model.Command{Shell: text}
	}
	return model.Command{Argv: argv}
}

// argv reads a line of words that no shell ever sees: a process name.
func (b *binder) argv(n *syntax.Node) ([]string, bool) {
	argv, ok := syntax.SplitCommand(strings.TrimPrefix(n.Raw, n.Words[0].Text))
	if ok && len(argv) == 1 {
		argv, ok = syntax.SplitCommand(argv[0])
	}
	if !ok {
		b.fail(n.ArgPos(0), "close the quote", "%s: a quote is not closed", n.Name())
		return nil, false
	}
	if len(argv) == 0 || argv[0] == "" {
		b.fail(n.Pos, "write "+n.Name()+" NAME", "%s: the name is empty", n.Name())
		return nil, false
	}
	return argv, true
}

// plausibleUser tells a user from an argument that somebody forgot to quote.
func plausibleUser(s string) bool {
	return slices.Contains([]string{"root", "nobody", "daemon", "keepalived", scriptUser}, s)
}

// shellWords start a command that only a shell understands.
var shellWords = []string{"[", "[[", "test", "!", "{", "(", ".", ":", "if", "for", "while", "until", "case", "cd", "exit",
	"source", "set", "export", "exec", "eval", "read", "trap", "let", "local", "return", "unset", "wait", "type", "command"}

// shellish says whether a command uses the shell's syntax. keepalived hands a
// command to exec, where "[ -e x ] && exit 1" is nonsense, but files in use
// hold such lines and mean them; only "<" at the start is its own sign for a
// shell.
func shellish(text string, argv []string) bool {
	if len(argv) == 0 {
		return false
	}
	if strings.HasPrefix(text, "<") {
		return true
	}
	if slices.Contains(shellWords, argv[0]) {
		return true
	}
	if i := strings.IndexByte(argv[0], '='); i > 0 && !strings.ContainsAny(argv[0][:i], "/.-") {
		return true // NAME=value command
	}
	shell := len(argv) > 1 && slices.Contains([]string{"sh", "bash", "dash", "ash"}, path.Base(argv[0]))
	var quoted byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quoted != '\'':
			i++
		case quoted != 0:
			if c == quoted {
				quoted = 0
			} else if quoted == '"' && (c == '$' || c == '`') && !shell {
				return true
			}
		case c == '\'' || c == '"':
			quoted = c
		case strings.IndexByte("|&;<>`\n", c) >= 0:
			return true
		case c == '$' && i+1 < len(text) && text[i+1] != ' ':
			return true
		}
	}
	return false
}
