package check

import (
	"fmt"
	"path"
	"slices"

	"ballast/configs/model"
)

// own are the names under which the box's own processes are counted; vrrp shows
// up as keepalived.
var own = []string{"keepalived", "ballast", "init", "conf", "net", "vrrp", "pacer", "ipvs", "health", "notify", "snmp", "console", "sh"}

// processes finds a vrrp_track_process of a program that a director never runs:
// nothing but its own processes and the configuration's scripts is there.
func (k *checker) processes() {
	if len(k.c.TrackProcesses) == 0 {
		return
	}
	here := slices.Clone(own)
	if k.facts != nil {
		here = append(here, k.facts.Commands...) // a script may start them
	}
	add := func(c model.Command, _ string, _ ...string) {
		if len(c.Argv) > 0 {
			here = append(here, path.Base(c.Argv[0]))
		}
		for _, p := range programs(c) {
			here = append(here, path.Base(p))
		}
	}
	k.commands(add)
	k.serverCommands(k.c.VirtualServers)(add)
	for _, f := range []model.FIFO{k.c.Global.NotifyFIFO, k.c.Global.VRRPFIFO, k.c.Global.LVSFIFO} {
		add(f.Script, "")
	}
	for i := range k.c.TrackProcesses {
		p := &k.c.TrackProcesses[i]
		if len(p.Argv) == 0 || slices.Contains(here, path.Base(p.Argv[0])) {
			continue
		}
		name := path.Base(p.Argv[0])
		text, fix := fmt.Sprintf("vrrp_track_process %s: %s never runs on this box, so it will never be there", p.Name, name),
			"check the service over the network, by HTTP_GET or a vrrp_script"
		if p.Quorum == 0 {
			text, fix = fmt.Sprintf("vrrp_track_process %s: %s never runs on this box, so the tracker is always good", p.Name, name), "delete it"
		}
		k.report(model.Note, fix, text, "process/"+p.Name)
	}
}
