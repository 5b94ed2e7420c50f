package bind

import (
	"path"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// globalMore does the lines of global_defs about mail, pipes, scripts, virtual
// MACs and SNMP.
func (b *binder) globalMore(k *schema.Keyword, n *syntax.Node) bool {
	g, d := &b.cfg.Global, &b.defaults
	switch k.Name {
	case "no_checker_emails":
		g.NoCheckerEmails = true
	case "checker_log_all_failures":
		g.CheckerLogAllFailures = truth(n)
	case "rs_init_notifies":
		g.RSInitNotifies = true
	case "smtp_tls":
		if g.SMTPTLS = n.Arg(0); n.Arg(0) == "off" {
			g.SMTPTLS = ""
		} else if n.Arg(0) == "on" {
			g.SMTPTLS = "tls"
		}
		b.places["smtp_tls"] = n.Pos
	case "smtp_verify":
		g.SMTPNoVerify = !truth(n)
		b.places["smtp_verify"] = n.Pos
	case "smtp_user":
		g.SMTPUser = n.Arg(0)
		b.places["smtp_user"] = n.Pos
	case "smtp_password":
		g.SMTPPassword = n.Arg(0)
		b.places["smtp_password"] = n.Pos
	case "startup_script":
		g.StartupScript = b.command(n, false)
		b.places["startup_script"] = n.Pos
	case "shutdown_script":
		g.ShutdownScript = b.command(n, false)
		b.places["shutdown_script"] = n.Pos
	case "startup_script_timeout":
		g.StartupScriptTimeout = seconds(n)
	case "shutdown_script_timeout":
		g.ShutdownScriptTimeout = seconds(n)
	case "notify_fifo":
		b.fifo(n, &g.NotifyFIFO)
	case "vrrp_notify_fifo":
		b.fifo(n, &g.VRRPFIFO)
	case "lvs_notify_fifo":
		b.fifo(n, &g.LVSFIFO)
	case "notify_fifo_script":
		b.fifoScript(n, &g.NotifyFIFO)
	case "vrrp_notify_fifo_script":
		b.fifoScript(n, &g.VRRPFIFO)
	case "lvs_notify_fifo_script":
		b.fifoScript(n, &g.LVSFIFO)
	case "vrrp_notify_priority_changes":
		d.priorityChanges = truth(n)
	case "fifo_write_vrrp_states_on_reload":
		g.FIFOStatesOnReload = true
	case "vrrp_garp_extra_if":
		if all, v, ok := b.extraIf(n, 1); ok {
			d.extraAll, d.extra = all, v
		}
	case "vrrp_owner_ignore_adverts":
		d.ownerIgnore = truth(n)
	case "vrrp_delay_after_boot":
		g.DelayAfterBoot = duration(n)
	case "log_unknown_vrids":
		g.LogUnknownVRIDs = true
	case "disable_local_igmp":
		g.DisableLocalIGMP = true
	case "vmac_prefix":
		if b.ifname(n, 0, n.Arg(0)) {
			d.vmacPrefix = n.Arg(0)
		}
	case "vmac_addr_prefix":
		if b.ifname(n, 0, n.Arg(0)) {
			d.vmacAddrPrefix = n.Arg(0)
		}
	case "enable_snmp_vrrp":
		g.SNMP.VRRP = true
	case "enable_snmp_checker":
		g.SNMP.Checker = true
	case "enable_snmp_keepalived":
		g.SNMP.VRRP, g.SNMP.Checker = true, true
	case "enable_snmp_rfc":
		g.SNMP.RFCv2, g.SNMP.RFCv3 = true, true
	case "enable_snmp_rfcv2":
		g.SNMP.RFCv2 = true
	case "enable_snmp_rfcv3":
		g.SNMP.RFCv3 = true
	case "enable_traps":
		g.SNMP.Traps = true
	case "snmp_vs_stats_update_interval":
		g.SNMP.ServiceAge = duration(n)
	case "snmp_rs_stats_update_interval":
		g.SNMP.ServerAge = duration(n)
	default:
		return false
	}
	return true
}

// fifo reads PATH [USER [GROUP]].
func (b *binder) fifo(n *syntax.Node, f *model.FIFO) {
	if !path.IsAbs(n.Arg(0)) {
		b.fail(n.ArgPos(0), "write the whole path", "%s: %s is no absolute path", n.Name(), quote(n.Arg(0)))
		return
	}
	if f.Path != "" {
		b.warn(n.Pos, "delete one of them", "%s is given twice; the first one counts, as in keepalived", n.Name())
		return
	}
	f.Path, f.User, f.Group = path.Clean(n.Arg(0)), n.Arg(1), n.Arg(2)
	if f.User != "" {
		b.note(n.ArgPos(1), "delete what stands behind the path", "%s: there is no user and no group to give the pipe to on this box: scripts run as one user, and that user reads it", n.Name())
	}
	b.places["fifo/"+n.Name()] = n.Pos
}

// fifoScript reads the program that a pipe is read by.
func (b *binder) fifoScript(n *syntax.Node, f *model.FIFO) {
	f.Script = b.command(n, false)
	b.places["fifo/"+n.Name()] = n.Pos
}

// finishFIFOs checks that the pipes differ and that each reader has one.
func (b *binder) finishFIFOs() {
	g := &b.cfg.Global
	taken := map[string]string{}
	for _, x := range []struct {
		word string
		f    *model.FIFO
	}{{"notify_fifo", &g.NotifyFIFO}, {"vrrp_notify_fifo", &g.VRRPFIFO}, {"lvs_notify_fifo", &g.LVSFIFO}} {
		if x.f.Path == "" {
			if !x.f.Script.IsZero() {
				b.warn(b.places["fifo/"+x.word+"_script"], "add "+x.word+" PATH", "%s_script has no %s to read; it is ignored, as in keepalived", x.word, x.word)
			}
			*x.f = model.FIFO{}
			continue
		}
		if other := taken[x.f.Path]; other != "" {
			b.fail(b.places["fifo/"+x.word], "give each pipe a path of its own", "%s and %s have the same path %s", x.word, other, quote(x.f.Path))
		}
		taken[x.f.Path] = x.word
	}
}

// finishMail checks what belongs together for a mail server.
func (b *binder) finishMail() {
	g := &b.cfg.Global
	for _, word := range []string{"smtp_tls", "smtp_verify", "smtp_user", "smtp_password"} {
		if at, given := b.places[word]; given && g.SMTPServer == "" {
			b.warn(at, "add smtp_server HOST [PORT]", "%s does nothing without smtp_server", word)
			return
		}
	}
	switch {
	case g.SMTPUser == "" && g.SMTPPassword != "":
		b.fail(b.places["smtp_password"], "add smtp_user NAME", "smtp_password goes with smtp_user")
	case g.SMTPUser != "" && g.SMTPPassword == "":
		b.fail(b.places["smtp_user"], "add smtp_password", "smtp_user goes with smtp_password")
	case g.SMTPUser != "" && g.SMTPTLS == "":
		b.fail(b.places["smtp_user"], "write smtp_tls starttls, or smtp_tls on", "a password is sent over TLS only, and smtp_tls is off")
	case g.SMTPNoVerify && g.SMTPTLS == "":
		b.note(b.places["smtp_verify"], "delete the line", "smtp_verify does nothing with smtp_tls off")
	case g.SMTPNoVerify:
		b.note(b.places["smtp_verify"], "", "the mail server's certificate is not verified: who stands between can read the mail and the password")
	}
}

// extraIf reads [all] SECONDS of garp_extra_if.
func (b *binder) extraIf(n *syntax.Node, least float64) (all bool, d time.Duration, ok bool) {
	i := 0
	if n.Arg(0) == "all" {
		all, i = true, 1
	}
	v, err := schema.Arg{Min: least, Max: 86400}.Int(n.Arg(i))
	if err != nil {
		b.fail(n.ArgPos(i), "write "+n.Name()+" [all] SECONDS", "%s: %v", n.Name(), err)
		return false, 0, false
	}
	return all, time.Duration(v) * time.Second, true
}
