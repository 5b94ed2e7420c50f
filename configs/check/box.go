package check

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"ballast/configs/model"
)

// nics checks every interface that the configuration names against the box.
func (k *checker) nics() {
	present := map[string]bool{}
	for _, n := range k.facts.Interfaces {
		present[n.Name] = true
	}
	made := map[string]bool{"lo": true}
	for _, i := range k.c.Interfaces {
		if i.Match == (model.Match{}) {
			continue
		}
		found := slices.ContainsFunc(k.facts.Interfaces, func(n NIC) bool {
			if i.Match.MAC != "" {
				return n.MAC == i.Match.MAC
			}
			return n.PCI == i.Match.PCI
		})
		if found {
			made[i.Name] = true
			continue
		}
		what := "MAC " + i.Match.MAC
		if i.Match.MAC == "" {
			what = "PCI address " + i.Match.PCI
		}
		made[i.Name] = true // reported here, once
		k.missing(fmt.Sprintf("interface %s: no card has %s", i.Name, what), "", "interface/"+i.Name+"/match", "interface/"+i.Name)
	}
	for _, b := range k.c.Bonds {
		made[b.Name] = true
	}
	for _, v := range k.c.VLANs {
		made[v.Name] = true
	}
	told := map[string]bool{}
	need := func(name, user string, keys ...string) {
		if name == "" || present[name] || made[name] || told[name] {
			return
		}
		told[name] = true
		k.missing(fmt.Sprintf("%s: the box has no interface %s", user, name), name, keys...)
	}
	for _, i := range k.c.Interfaces {
		if i.Match == (model.Match{}) {
			need(i.Name, "interface "+i.Name, "interface/"+i.Name)
		}
	}
	for _, b := range k.c.Bonds {
		for _, m := range b.Members {
			need(m, "bond "+b.Name, "bond/"+b.Name)
		}
	}
	for _, v := range k.c.VLANs {
		need(v.Link, "vlan "+v.Name, "vlan/"+v.Name)
	}
	for i := range k.c.Instances {
		in := &k.c.Instances[i]
		need(in.Interface, in.Name, instance(in.Name, "interface"), instance(in.Name))
		for _, a := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
			need(a.Interface, in.Name, instance(in.Name, "vip", a.Prefix.Addr().String()))
		}
		for _, t := range in.TrackInterfaces {
			need(t.Interface, in.Name, "track_interface/"+t.Interface, instance(in.Name))
		}
	}
	if s := k.c.Global.SyncDaemon; s != nil {
		need(s.Interface, "lvs_sync_daemon", "sync_daemon")
	}
}

// missing reports an interface that is not there, with those that are.
func (k *checker) missing(text, name string, keys ...string) {
	severity := model.Error
	if k.c.Global.DynamicInterfaces {
		severity = model.Warning
	}
	used := map[model.Match]bool{}
	for _, i := range k.c.Interfaces {
		used[i.Match] = true
	}
	var have []string
	example := ""
	listed := map[string]bool{} // a card may come under several names
	for _, n := range k.facts.Interfaces {
		if n.Name == "lo" || n.MAC == "" || listed[n.MAC] {
			continue
		}
		listed[n.MAC] = true
		have = append(have, n.Name+" ("+n.MAC+")")
		if example == "" && !used[model.Match{MAC: n.MAC}] {
			example = n.MAC
		}
	}
	fix := "the box has no network card"
	if len(have) > 0 {
		fix = "the box has " + strings.Join(have, ", ")
		if name != "" && example != "" {
			fix += fmt.Sprintf("; to give a card this name write: interface %s { mac %s }", name, example)
		}
	}
	k.report(severity, fix, text, keys...)
}

// calls calls f for commands of the configuration.
type calls func(f func(c model.Command, what string, keys ...string))

// files finds script files that commands call and the box lacks.
func (k *checker) files(commands calls) {
	box := k.facts.Box
	if box == "" {
		box = "BOX"
	}
	if k.told == nil {
		k.told = map[string]bool{}
	}
	told := k.told
	commands(func(c model.Command, what string, keys ...string) {
		for _, p := range programs(c) {
			if told[p] || slices.Contains(k.facts.Files, p) {
				continue
			}
			if !Storable(p) {
				// A command of the system: the image has it by name, or nobody can add it.
				if k.facts.Commands != nil && !slices.Contains(k.facts.Commands, path.Base(p)) {
					told[p] = true
					k.report(model.Warning, "call what the box has, or a script under /etc/keepalived or /usr/local",
						fmt.Sprintf("%s calls %s, and there is no such command on the box", what, p), keys...)
				}
				continue
			}
			told[p] = true
			k.report(model.Warning, fmt.Sprintf("load it: ssh admin@%s file put %s < %s", box, p, path.Base(p)),
				fmt.Sprintf("%s calls %s, which is not on the box", what, p), keys...)
		}
	})
}

// Storable says whether a script file of this path can be stored on the box.
func Storable(p string) bool {
	for _, dir := range []string{"/etc/keepalived/", "/usr/local/", "/usr/libexec/keepalived/", "/opt/"} {
		if strings.HasPrefix(p, dir) && path.Clean(p) == p {
			return true
		}
	}
	return false
}

// programs are what a command runs: its first word, or the script behind an
// interpreter; in a shell line the paths that stand first in its parts.
func programs(c model.Command) []string {
	if c.Shell != "" {
		var out []string
		first := true
		parts := strings.NewReplacer("&&", " ; ", "||", " ; ", "|", " ; ", ";", " ; ", "(", " ; ", "`", " ; ").Replace(c.Shell)
		for _, w := range strings.Fields(parts) {
			if first && strings.HasPrefix(w, "/") && !strings.ContainsAny(w, "$*?<>\"'") {
				out = append(out, w)
			}
			first = w == ";" || w == "!" || w == "then" || w == "do" || w == "else"
		}
		return out
	}
	switch {
	case len(c.Argv) == 0:
		return nil
	case interpreter(c.Argv[0]):
		if len(c.Argv) > 1 && strings.HasPrefix(c.Argv[1], "/") {
			return c.Argv[1:2]
		}
		return nil
	}
	return c.Argv[:1]
}

func interpreter(p string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash"}, path.Base(p))
}

// commands are those of all but the virtual servers.
func (k *checker) commands(f func(c model.Command, what string, keys ...string)) {
	for _, s := range k.c.Scripts {
		f(s.Command, "vrrp_script "+s.Name, "script/"+s.Name)
	}
	notify := func(n *model.Notify, kind, name string) {
		for _, x := range []struct {
			word string
			c    model.Command
		}{
			{"notify_master", n.Master}, {"notify_backup", n.Backup}, {"notify_fault", n.Fault}, {"notify_stop", n.Stop},
			{"notify_deleted", n.Deleted}, {"notify_master_rx_lower_pri", n.MasterRxLowerPri}, {"notify", n.Any},
		} {
			f(x.c, name+" "+x.word, kind+"/"+name+"/"+x.word, kind+"/"+name)
		}
	}
	for i := range k.c.Instances {
		notify(&k.c.Instances[i].Notify, "instance", k.c.Instances[i].Name)
	}
	for i := range k.c.SyncGroups {
		notify(&k.c.SyncGroups[i].Notify, "group", k.c.SyncGroups[i].Name)
	}
}

// serverCommands are those of virtual servers.
func (k *checker) serverCommands(list []model.VirtualServer) calls {
	return func(f func(c model.Command, what string, keys ...string)) {
		for i := range list {
			commandsOf(&list[i], f)
		}
	}
}

// commandsOf calls f for the commands of a virtual server. Of 10,000 few have
// any, and words are made for those.
func commandsOf(v *model.VirtualServer, f func(c model.Command, what string, keys ...string)) {
	quorum := func(c model.Command, word string) {
		if !c.IsZero() {
			f(c, "virtual server "+v.Name+" "+word, "vs/"+v.Name+"/"+word, "vs/"+v.Name)
		}
	}
	quorum(v.QuorumUp, "quorum_up")
	quorum(v.QuorumDown, "quorum_down")
	for j := range v.Real {
		r := &v.Real[j]
		server := func(c model.Command, word, keyword string) {
			if !c.IsZero() {
				key := fmt.Sprintf("rs/%s/%s:%d", v.Name, r.Addr, r.ConfPort)
				f(c, "real server "+r.Addr.String()+" "+word, key+"/"+keyword, key)
			}
		}
		server(r.NotifyUp, "notify_up", "notify_up")
		server(r.NotifyDown, "notify_down", "notify_down")
		for l := range r.Checks {
			server(r.Checks[l].Command, "MISC_CHECK", "misc_path")
		}
	}
}
