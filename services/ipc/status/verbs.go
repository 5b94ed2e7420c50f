package status

import (
	"net/netip"
	"time"

	"ballast/configs/model"
)

// The verbs of the services, by socket. A verb's argument and answer are the
// types named here; "-" is none. What role a user of the console needs for one
// stands where it is handled (ipc.Server.Handle), and in test/access.
//
//	every service but init and console
//	  prepare      Prepare        -                can you apply this? an error refuses the commit
//	conf
//	  check        Candidate      CheckReport      parse and check, nothing changes
//	  commit       Candidate      CommitResult     check, prepare everywhere, store, apply everywhere, else roll back
//	  rollback     Rollback       CommitResult
//	  confirm      Confirmation   Confirmed        keep what "commit confirmed" brought; an error when nothing waits for that
//	  compare      Compare        string           unified difference of two generations, secrets masked
//	  history      -              []Generation     newest first
//	  text         TextQuery      Candidate        the text of a generation; 0: the running one; without secrets for who is no administrator
//	  file-put     File           -                store a script that the configuration calls
//	  file-list    -              []File           without contents
//	  file-delete  File           -
//	  pair         the message  PeerMessage      for peer: what the other box says, and what is answered
//	  spare        -            Spare            for init: what of the running configuration is about the box itself
//	  peer-state   -            PairState        this box and its peer
//	  peer-drift   -            Drift            in what both configurations differ
//	  peer-push    PairChange   CommitResult     what runs here runs on both
//	  peer-pull    PairChange   CommitResult     what runs there runs here
//	peer
//	  send         PeerTarget   PeerMessage      for conf, and firmware over its channel: a message, and the other box's answer
//	vrrp
//	  resign       Resign         -                give up mastership (priority 0) and stay backup until resume
//	  resume       -              -
//	ipvs
//	  connections  ConnQuery      []Conn           the argument may be left out
//	  order        ServerOrder    []Dest           drain, disable, enable or weigh a real server; answers when the kernel has it
//	  service      string         []Service        one virtual server by its name, read from the kernel now
//	  page         PageQuery      Page             a screenful of the virtual servers, and the sum of all; the argument may be left out
//	  orders       -              []Order          those in force
//	health
//	  server       string         VirtualServerHealth  one virtual server by its name
//	notify
//	  run          Run            RunResult        run a check script for health
//	  mail         Mail           -                queue a message for smtp_server
//	  track-file   TrackValue     -                write the number of a track_file
//	  journal      JournalQuery   []Entry          transitions of all services, kept over a reboot; oldest first
//	  note         Transition     -                for firmware, which nobody watches: a transition for the journal
//	  audit        []AuditEntry   -                keep these
//	  audit-log    AuditQuery     []AuditEntry     oldest first
//	net, ipvs
//	  support      -              parts            streams: the tables of the kernel that it owns, for a support bundle (package support)
//	capture
//	  capture      CaptureRequest bytes            streams: packets, until the input ends
//	console
//	  kick         Kick           -                end a session
//	firmware
//	  upgrade      FirmwareUpgrade []FirmwareProgress  streams: a bundle comes, how far it is goes back
//	  rollback     FirmwareOrder  FirmwareAnswer   start the other slot on trial; in a trial: end it
//	  confirm      FirmwareOrder  FirmwareAnswer   keep what runs
//	  pair              the message         PeerMessage  for peer: what the firmware of the other box says, and what is answered
//	  upgrade-pair      FirmwareUpgrade     streams      a bundle for both boxes of the pair; rows of FirmwarePairProgress come back
//	  upgrade-pair-ask  FirmwarePairAsk     -            go on with an upgrade of the pair that has stopped, or end one
//	script (served by notify on an abstract socket, for programs that users run)
//	  mail         Mail           -
//	  resign       Resign         -                what "killall keepalived" means here
//	  resume       -              -
//	  keepalived   -              Keepalived       is it running, as a script would ask
//	init
//	  log          LogQuery       []LogLine        oldest first
//	  restart      Restart        -                signal a service; supervision starts it again
//	  reboot       Power          -                orderly: vrrp resigns, services stop, sync
//	  poweroff     Power          -
//	  factory-reset  FactoryReset  -             reboot, and wipe the data before anything is started
//	  crash        CrashQuery     CrashAnswer      records of crashes; one that is asked for by its number counts as seen
//	  stick        -              bytes            streams: for firmware, the bundle on a USB stick

// Spare is the part of the running configuration that is about the box and not
// about its work: host name, users, interfaces, routes, peer. It holds secrets.
type Spare struct {
	Generation uint64 `json:"generation"`
	Text       string `json:"text"`
	Peer       bool   `json:"peer"` // it names the other box of a pair
}

// Prepare is the argument of "prepare".
type Prepare struct {
	Generation uint64 `json:"generation"`
	// Token names the configuration for whoever follows conf (package follow);
	// empty: Config is it.
	Token  string       `json:"token,omitempty"`
	Config model.Config `json:"config,omitzero"`
}

// Candidate is a configuration text on its way in.
type Candidate struct {
	Text    string `json:"text"`
	Name    string `json:"name,omitempty"` // file name for messages
	Author  string `json:"author,omitempty"`
	Comment string `json:"comment,omitempty"`
	// Override replaces the whole configuration. Otherwise the blocks of the
	// appliance (system, interface, bond, vlan, route, mark, heartbeat, peer, snmp) of the running
	// configuration stay, unless the text has blocks of that kind itself.
	Override bool `json:"override,omitempty"`
	// Lines asks a check for what becomes of each line (CheckReport.Lines).
	Lines bool `json:"lines,omitempty"`
	// Force commits although a service does not run; it takes the
	// configuration when it starts. A service that answers may still refuse.
	Force bool `json:"force,omitempty"`
	// Local commits on this box only, although it has a peer.
	Local bool `json:"local,omitempty"`
	// Base is the running generation that the text was made from. conf refuses
	// to commit over another one. 0: any.
	Base uint64 `json:"base,omitempty"`
	// Confirm is how long the commit has to be confirmed, by the verb "confirm"
	// or another commit, before what ran goes back in its place; at most
	// MaxConfirm. 0: it needs no confirmation.
	Confirm time.Duration `json:"confirm,omitempty"`
	// Session is who commits, and by which way: a commit that would cut that off
	// is refused unless Confirm or Force is set. nil: nothing can be cut off.
	Session *Session `json:"session,omitempty"`
}

// Bounds of Candidate.Confirm.
const (
	MaxConfirm     = time.Hour
	DefaultConfirm = 5 * time.Minute
)

// Session is a session of the console as the box sees it.
type Session struct {
	User string `json:"user"`
	// Local is the address of this box that the client talks to, Remote the
	// client's. Not valid on the serial line.
	Local  netip.Addr `json:"local,omitzero"`
	Remote netip.Addr `json:"remote,omitzero"`
	// Terminal is set when somebody is there to read a refusal. A script's
	// commit gets a warning instead.
	Terminal bool `json:"terminal,omitempty"`
}

// Confirmation says who confirms. Generation is the one that is meant; 0: the
// one that waits.
type Confirmation struct {
	Generation uint64 `json:"generation,omitempty"`
	Author     string `json:"author,omitempty"`
}

// Confirmed is what stays.
type Confirmed struct {
	Generation uint64        `json:"generation"`
	Left       time.Duration `json:"left"` // of the time that there was
}

// Compare names two generations; 0 is the running one.
type Compare struct {
	A uint64 `json:"a"`
	B uint64 `json:"b"`
}

// Apart is c without its text, which has megabytes, and the text (ipc.Texter).
func (c Candidate) Apart() (rest any, text string) {
	text, c.Text = c.Text, ""
	return c, text
}

// SetText puts the text in its place again.
func (c *Candidate) SetText(text string) { c.Text = text }

// CheckReport is the outcome of a check.
type CheckReport struct {
	Problems []Problem `json:"problems"`
	Errors   int       `json:"errors"`
	Merged   string    `json:"merged,omitempty"` // the text that would run; secrets included, so the console does not print it
	Diff     string    `json:"diff,omitempty"`   // unified, against the running one
	Cuts     []string  `json:"cuts,omitempty"`   // why it would cut off the session that asks
	// Lines are the candidate's lines with what becomes of each, when it asked for
	// them. Secrets are masked.
	Lines []model.Outcome `json:"lines,omitempty"`
}

// CommitResult is the outcome of a commit or rollback that took effect. A
// commit that did not is an error whose text lists every reason.
type CommitResult struct {
	Generation uint64            `json:"generation"`
	Problems   []Problem         `json:"problems,omitempty"`
	Warnings   map[string]string `json:"warnings,omitempty"` // service: what it could not do yet
	Took       time.Duration     `json:"took"`
	// Peer is the other box, when it runs it too.
	Peer string `json:"peer,omitempty"`
	// Pending is set when it has to be confirmed; Confirmed names a generation
	// that this commit confirmed.
	Pending   *Pending `json:"pending,omitempty"`
	Confirmed uint64   `json:"confirmed,omitempty"`
}

// Rollback names a generation; 0 is the one before the running one.
type Rollback struct {
	Generation uint64 `json:"generation"`
	Author     string `json:"author,omitempty"`
	Force      bool   `json:"force,omitempty"` // as Candidate.Force
	// Confirm and Session are as in Candidate.
	Confirm time.Duration `json:"confirm,omitempty"`
	Session *Session      `json:"session,omitempty"`
	Local   bool          `json:"local,omitempty"` // as Candidate.Local
}

// TextQuery names a generation whose text is wanted; 0 is the running one.
type TextQuery struct {
	Generation uint64 `json:"generation"`
	// Masked leaves its secrets out; who is no administrator gets none anyway.
	Masked bool `json:"masked,omitempty"`
}

// Generation is one line of the history.
type Generation struct {
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	Source     string    `json:"source"`
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	Running    bool      `json:"running,omitempty"`
	Size       int       `json:"size,omitempty"`    // bytes of the text
	Pending    bool      `json:"pending,omitempty"` // runs, and is not confirmed yet
}

// File is a script or data file that the configuration calls by path, kept
// with the configuration. It must lie under /etc/keepalived, /usr/local,
// /usr/libexec/keepalived or /opt.
type File struct {
	Path    string `json:"path"`
	Mode    uint32 `json:"mode,omitempty"` // permission bits, default 0755
	Size    int    `json:"size,omitempty"`
	Content []byte `json:"content,omitempty"`
}

// Resign says who asks vrrp to give up mastership, and for which instance
// (empty: all of them).
type Resign struct {
	By       string `json:"by"`
	Instance string `json:"instance,omitempty"`
	// Keep makes it outlive a reboot (maintenance); only of all instances.
	Keep bool `json:"keep,omitempty"`
}

// Run asks notify to run a command once.
type Run struct {
	Name    string        `json:"name"` // never more than one run of a name at a time
	Command model.Command `json:"command"`
	Timeout time.Duration `json:"timeout"`
}

// RunResult is what came of it.
type RunResult struct {
	Exit   int           `json:"exit"`             // -1: killed by timeout or a signal, or could not start
	Output string        `json:"output,omitempty"` // tail, at most 4 KiB
	Detail string        `json:"detail"`
	Took   time.Duration `json:"took"`
}

// Mail is one message. No recipients means notification_email.
type Mail struct {
	To      []string `json:"to,omitempty"`
	Subject string   `json:"subject"`
	Body    string   `json:"body"`
}

// Keepalived is what a script that asks for keepalived gets to know: it is
// active unless somebody made this director resign.
type Keepalived struct {
	Active bool   `json:"active"`
	By     string `json:"by,omitempty"` // who made it resign
}

// ConnQuery selects connections. The zero value of a field matches all of them.
type ConnQuery struct {
	Limit   int            `json:"limit,omitempty"` // default 1,000, at most 20,000
	Client  netip.Addr     `json:"client,omitzero"`
	Virtual netip.AddrPort `json:"virtual,omitzero"` // port 0: any
	Dest    netip.AddrPort `json:"dest,omitzero"`    // port 0: any
}

// LogQuery selects log lines.
type LogQuery struct {
	Service string    `json:"service,omitempty"` // empty: all, "kernel": the kernel's own
	Lines   int       `json:"lines,omitempty"`   // newest n; 0: 200
	After   time.Time `json:"after,omitzero"`
}

// Restart signals one service. Signal 0 means SIGTERM.
type Restart struct {
	Service string `json:"service"`
	Signal  int    `json:"signal,omitempty"`
}

// ServerOrder tells what to do with a real server. An empty VirtualServer means
// in every virtual server that has it; port 0 means every port of it.
type ServerOrder struct {
	VirtualServer string     `json:"virtualServer,omitempty"`
	Addr          netip.Addr `json:"addr"`
	Port          uint16     `json:"port,omitempty"`
	Action        string     `json:"action"` // OrderDrain, OrderDisable, OrderWeight, OrderEnable
	Weight        int        `json:"weight,omitempty"`
	By            string     `json:"by,omitempty"`
}

// TrackValue is a number for a track_file.
type TrackValue struct {
	Name  string `json:"name"`
	Value int    `json:"value"`
}

// JournalQuery selects entries of the journal. The zero value of a field
// matches all of them.
type JournalQuery struct {
	Limit   int       `json:"limit,omitempty"`   // newest n; 0: 200, at most 20,000
	Object  string    `json:"object,omitempty"`  // part of Transition.Object
	Service string    `json:"service,omitempty"` // "vrrp", "health", …
	After   time.Time `json:"after,omitzero"`
}

// Entry is one line of the journal.
type Entry struct {
	Service string `json:"service"`
	Transition
}
