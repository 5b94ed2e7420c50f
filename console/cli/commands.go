package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ballast/services/ipc/status"
)

// command is one row of the command table.
type command struct {
	words []string // fixed words
	args  string   // how the rest is written, for help
	help  string
	role  Role
	json  bool // has a --json form
	run   func(context.Context, *call) (string, error)
	// values lists what the argument at position n can be, for completion.
	values func(ctx context.Context, c *call, n int) []string
	// next is values with help, by the arguments before the one that is typed.
	next func(ctx context.Context, c *call, args []string, last string) []Completion
	set  bool // "| display set" is possible
	diff bool // "| compare" is possible
}

func (c *command) name() string { return strings.Join(c.words, " ") }

func (c *command) usage() string {
	if c.args == "" {
		return c.name()
	}
	return c.name() + " " + c.args
}

// commands is the table, in the order of help; configureCommands is that of
// configure mode. They are filled by init because the command help refers to
// them.
var commands, configureCommands []*command

func init() {
	commands = append(makeCommands(), modeCommands()...)
	configureCommands = makeConfigureCommands()
	for _, c := range commands {
		switch c.name() {
		case "show configuration":
			c.set = true
		case "compare", "rollback":
			c.next = nextGeneration
		case "commit":
			c.next = nextCommit
		case "load":
			c.next = nextLoad
		}
	}
}

func makeCommands() []*command {
	row := func(words, args, help string, role Role, json bool, run func(context.Context, *call) (string, error), values func(context.Context, *call, int) []string) *command {
		return &command{words: strings.Fields(words), args: args, help: help, role: role, json: json, run: run, values: values}
	}
	return []*command{
		row("show status", "", "this box on one page: what is wrong, roles, servers, last events", View, true, showStatus, nil),
		row("monitor", "[--once] [mono] [ascii] [TERM]", "full-screen live view", View, false, monitorBox, words("--once", "ascii", "mono")),
		row("show vrrp", "[INSTANCE]", "virtual routers: state, since when, why", View, true, showVRRP, instances),
		row("show ipvs", "", "virtual and real servers, as ipvsadm -Ln", View, true, showIPVS, nil),
		row("show ipvs stats", "", "counters, as ipvsadm -Ln --stats", View, true, showIPVSStats, nil),
		row("show ipvs rates", "", "rates, as ipvsadm -Ln --rate", View, true, showIPVSRates, nil),
		row("show ipvs connections", "", "connection table, as ipvsadm -Lnc", View, true, showConnections, nil),
		row("show health", "[TEXT]", "checks of real servers with their reasons", View, true, showHealth, nil),
		row("show orders", "", "real servers that are drained, disabled or weighed by order", View, true, showOrders, nil),
		row("show journal", "[OBJECT] [LINES]", "every transition with its reason, newest last", View, true, showJournal, instances),
		row("show heartbeat", "", "private heartbeat to the peer, by path", View, true, showHeartbeat, nil),
		row("show bfd", "", "BFD sessions", View, true, showBFD, nil),
		row("show scripts", "", "vrrp_script, track_file, track_process and startup_script: what came of them", View, true, showScripts, nil),
		row("show fifos", "", "notify pipes and their readers", View, true, showFIFOs, nil),
		row("show timers", "", "how late the timers of vrrp fire", View, true, showTimers, nil),
		row("explain vrrp", "[INSTANCE]", "why a virtual router is in its state, with the evidence", View, false, explainVRRP, instances),
		row("explain server", "ADDRESS[:PORT]", "why a real server gets connections or not", View, false, explainServer, realServers),
		row("show interfaces", "", "links and addresses", View, true, showInterfaces, nil),
		row("show routes", "", "routes of the main table", View, true, showRoutes, nil),
		row("show marks", "", "firewall marks with their counters", View, true, showMarks, nil),
		row("show firewall", "", "what may reach the box itself, with counters", View, true, showFirewall, nil),
		row("show log", "[SERVICE] [LINES]", "log of the services, newest last", View, true, showLog, services),
		row("show configuration", "[GENERATION] [secrets]", "running configuration, or an earlier one; with its secrets for an administrator", View, true, showConfiguration, words("secrets")),
		row("show history", "", "generations of the configuration", View, true, showHistory, nil),
		row("show peer", "", "this box's key, the other box of the pair, and whether both run the same", View, true, showPeer, nil),
		row("show drift", "", "in what the configurations of a pair differ", View, true, showDrift, nil),
		row("show files", "", "script files kept with the configuration", View, true, showFiles, nil),
		row("show version", "", "what runs on this box", View, true, showVersion, nil),
		row("show processes", "", "services with their memory and restarts", View, true, showProcesses, nil),
		row("show crash", "[N]", "how the box came to start, and what is left of crashes", View, true, showCrash, crashes),
		row("show audit", "[USER] [LINES]", "what users did, and what came of it; newest last", View, true, showAudit, nil),
		row("show sessions", "", "who is on this box", View, true, showSessions, nil),
		row("kick", "SESSION", "end a session", Admin, false, kick, sessions),
		row("load", "[merge|replace|override|set] [terminal]", "read a configuration as this session's candidate", Admin, false, load, words("merge", "override", "replace", "set", "terminal")),
		row("load uploaded", "[merge|replace|override|set]", "load what was sent by scp or sftp", Admin, false, loadUploaded, words("merge", "override", "replace", "set")),
		row("check", "", "check the candidate", Admin, true, checkCandidate, nil),
		row("check report", "", "what becomes of each line of the candidate: works, mapped, no effect and why, not understood", Admin, true, checkReport, nil),
		row("compare", "[GENERATION [GENERATION]]", "difference of the candidate from what runs, or of generations", Admin, false, compare, nil),
		row("commit", commitArgs, "make the candidate the running configuration", Admin, true, commit, words(commitWords...)),
		row("discard", "", "forget the candidate", Admin, false, discard, nil),
		row("confirm", "", "keep what \"commit confirmed\" brought", Admin, true, confirm, nil),
		row("rollback", "[GENERATION] [confirmed [MINUTES]] [force] [local]", "run an earlier configuration again", Admin, true, rollback, nil),
		row("peer pull", "[from ADDRESS key KEY as HOSTNAME]", "run here what runs on the peer", Admin, true, peerPull, words("as", "force", "from", "key", "port", "source")),
		row("peer push", "[force]", "run on both boxes what runs here", Admin, true, peerPush, words("force")),
		row("install", installArgs, "write firmware, configuration and identity of this box to a blank disk; \"older\": also one older than what runs", Admin, false, install, words("net", "older", "slot")),
		row("netboot serve", "MAC as NAME [on INTERFACE] [address ADDRESS] [dhcp server|proxy] [for 30m]", "let a box boot from this one over the network", Admin, true, netbootServe, words("address", "as", "dhcp", "for", "on")),
		row("netboot forget", "NAME", "have a new identity made for a box that boots from this one", Admin, false, netbootForget, nil),
		row("netboot stop", "[MAC|NAME]", "end what netboot serve began", Admin, false, netbootStop, nil),
		row("show netboot", "", "boxes that boot from this one, and how far they are", View, true, showNetboot, nil),
		row("file put", "PATH [MODE]", "store a script file that the configuration calls", Admin, false, filePut, files),
		row("file list", "", "script files kept with the configuration", View, true, showFiles, nil),
		row("file show", "PATH", "print a script file", Admin, false, fileShow, files),
		row("file delete", "PATH", "delete a script file", Admin, false, fileDelete, files),
		row("drain", "SERVER [of VIRTUAL]", "no new connections for a real server; the old ones go on", Operate, true, order(status.OrderDrain), realServers),
		row("disable", "SERVER [of VIRTUAL]", "take a real server out of the table; its connections end", Operate, true, order(status.OrderDisable), realServers),
		row("enable", "SERVER [of VIRTUAL]", "as configured again", Operate, true, order(status.OrderEnable), realServers),
		row("weight", "SERVER N [of VIRTUAL]", "another weight than the configured one", Operate, true, order(status.OrderWeight), realServers),
		row("track-file", "NAME VALUE", "write the number of a track_file", Operate, false, trackFile, nil),
		row("resign", "[INSTANCE]", "give up mastership and stay backup until resume", Operate, false, resign, instances),
		row("resume", "", "take part in elections again", Operate, false, resume, nil),
		row("maintenance", "on|off", "give up mastership and stay backup, also over a reboot", Operate, false, maintenance, words("off", "on")),
		row("restart", "SERVICE [signal N]", "restart a service", Operate, false, restart, services),
		row("capture", captureArgs, "packets of an interface: a file for Wireshark, or on a terminal a line each", Admin, false, capture, captureNext),
		row("support bundle", "", "one archive for whoever looks into a fault: ssh USER@BOX support bundle > bundle.tar.gz", Admin, false, supportBundle, nil),
		row("upgrade", upgradeArgs, "another firmware into the idle slot, from what is sent along, a URL or a USB stick; starts it on trial", Admin, false, upgrade, words(upgradeWords...)),
		row("upgrade pair", upgradePairArgs, "another firmware for both boxes, one after the other; clients go on being served", Admin, false, upgradePair, words("older", "usb")),
		row("upgrade pair continue", "", "go on with an upgrade of the pair that has stopped", Admin, false, pairAsk(status.PairContinue, "it goes on: see \"show firmware\""), nil),
		row("upgrade pair abort", "", "end an upgrade of the pair: nothing more reboots", Admin, false, pairAsk(status.PairAbort, "ended: nothing more reboots"), nil),
		row("show firmware", "", "slots and what is in them, a trial, the last upgrades", View, true, showFirmware, nil),
		row("rollback firmware", "[noreboot]", "start the firmware of the other slot on trial; in a trial: end it", Admin, true, rollbackFirmware, words("noreboot")),
		row("confirm firmware", "", "keep a firmware that is on trial", Admin, true, confirmFirmware, nil),
		row("reboot", "", "restart this box in good order", Admin, false, reboot, nil),
		row("poweroff", "", "stop this box in good order", Admin, false, poweroff, nil),
		row("factory-reset", "[keep-identity]", "wipe configuration, keys, files and logs, and restart; the firmware stays", Admin, false, factoryReset, words(keepIdentity)),
		row("terminal length", "ROWS", "rows of a page; 0: output never waits for a key", View, false, terminalSize("length"), nil),
		row("terminal width", "COLUMNS", "columns of a line; 0: as the terminal tells", View, false, terminalSize("width"), nil),
		row("help", "[COMMAND|KEYWORD]", "list the commands, or what a keyword of the configuration means", View, false, help, nil),
		row("exit", "", "leave", View, false, exit, nil),
		row("quit", "", "leave", View, false, exit, nil),
	}
}

// find resolves words, which may be abbreviated, to a command of list and its
// arguments.
func find(list []*command, words []string, role Role) (*command, []string, error) {
	left := slices.Clone(list)
	words = unaliased(words)
	for i := 0; ; i++ {
		names := wordsAt(left, i)
		if i >= len(words) || len(names) == 0 {
			return complete(left, words, i, role)
		}
		name, err := pick(words[i], names)
		if err != nil {
			if hasComplete(left, i) && takesArgs(left, i) {
				return complete(left, words, i, role) // "show ipvs" has both words and arguments after it
			}
			return nil, nil, unknown(left, words, i, role)
		}
		left = slices.DeleteFunc(left, func(c *command) bool { return len(c.words) <= i || c.words[i] != name })
	}
}

// aliases are words that people type in place of a command and that would be
// ambiguous otherwise.
var aliases = map[string]string{"conf": "configure"}

func unaliased(words []string) []string {
	if len(words) > 0 && aliases[words[0]] != "" {
		return append([]string{aliases[words[0]]}, words[1:]...)
	}
	return words
}

// wordsAt lists the fixed words that are possible at position i.
func wordsAt(list []*command, i int) []string {
	var names []string
	for _, c := range list {
		if len(c.words) > i && !slices.Contains(names, c.words[i]) {
			names = append(names, c.words[i])
		}
	}
	return names
}

func hasComplete(list []*command, i int) bool {
	return slices.ContainsFunc(list, func(c *command) bool { return len(c.words) == i })
}

func takesArgs(list []*command, i int) bool {
	return slices.ContainsFunc(list, func(c *command) bool { return len(c.words) == i && c.args != "" })
}

// complete picks the command whose fixed words are exactly the first i.
func complete(list []*command, words []string, i int, role Role) (*command, []string, error) {
	for _, c := range list {
		if len(c.words) != i {
			continue
		}
		args := words[i:]
		if c.args == "" && len(args) > 0 {
			return nil, nil, unknown(list, words, i, role)
		}
		return c, args, nil
	}
	return nil, nil, unknown(list, words, i, role)
}

// unknown tells what is possible at position i.
func unknown(list []*command, words []string, i int, role Role) error {
	list = slices.DeleteFunc(slices.Clone(list), func(c *command) bool { return c.role > role })
	var fixed string
	if len(list) > 0 && i > 0 {
		fixed = strings.Join(list[0].words[:min(i, len(list[0].words))], " ")
	}
	names := wordsAt(list, i)
	slices.Sort(names)
	what := "is incomplete"
	if i < len(words) {
		if found := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, words[i]) }); len(found) > 1 {
			return usagef("%q could be any of: %s", shown(words[i]), strings.Join(found, ", "))
		}
		if fixed == "" {
			return usagef("%q is not a command; possible: %s", shown(words[i]), strings.Join(names, ", "))
		}
		what = fmt.Sprintf("does not take %q", shown(words[i]))
	}
	switch {
	case len(names) == 0:
		return usagef("%s %s", fixed, what)
	case fixed == "":
		return usagef("type a command; possible: %s", strings.Join(names, ", "))
	}
	return usagef("%s %s; possible: %s", fixed, what, strings.Join(names, ", "))
}

func help(_ context.Context, c *call) (string, error) {
	var b strings.Builder
	prefix := strings.Join(c.args, " ")
	for _, cmd := range c.s.commands() {
		if cmd.role > c.s.Role || cmd.words[0] == "quit" || !strings.HasPrefix(cmd.name(), prefix) {
			continue
		}
		usage := cmd.usage()
		if len(usage) > 42 {
			usage += "\n" + strings.Repeat(" ", 44)
		}
		fmt.Fprintf(&b, "  %-42s %s\n", usage, cmd.help)
	}
	if len(c.args) > 0 {
		b.WriteString(keywordHelp(c.args))
	}
	if b.Len() == 0 {
		return "", usagef("there is no command or keyword %q for role %s; \"help\" lists all", shown(prefix), c.s.Role)
	}
	if prefix == "" {
		b.WriteString("Words may be shortened while they stay unique. \"--json\" after a show command gives\n" +
			"the whole state. Filters: | match TEXT, | except TEXT, | last N, | count, | json,\n" +
			"| display set, | no-more.\n")
	}
	return b.String(), nil
}

func exit(context.Context, *call) (string, error) { return "", errExit }
