package bind

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// realServer binds one real_server block.
func (b *binder) realServer(v *virtual, n *syntax.Node) {
	r := model.RealServer{Weight: v.weight, Forward: v.Forward, Tunnel: v.Tunnel, InhibitOnFailure: v.inhibit}
	a, err := netip.ParseAddr(n.Arg(0))
	good := err == nil && a.Zone() == ""
	if !good {
		b.fail(n.ArgPos(0), "write real_server ADDRESS PORT", "real_server: %s is no IP address", quote(n.Arg(0)))
	}
	r.Addr = a
	r.Port, _ = b.port(n, 1)
	own, mail, host := unset(), model.Unset, v.host
	var checks []*syntax.Node
	b.each("real_server", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "alpha":
			// The row stands for six words, each with the arguments it has in virtual_server.
			if b.check(schema.Lookup("virtual_server", l.Name()), l) {
				own.take(l)
			}
		case "weight":
			r.Weight = number(l)
		case "lvs_method":
			if f, ok := b.forward(l, 0); ok {
				r.Forward, r.Tunnel = f.method, f.tunnel
			}
			if l.Name() == "lb_kind" {
				b.mapped(l, "read as lvs_method")
				b.note(l.Pos, "write lvs_method", "lb_kind in a real_server is read as lvs_method; keepalived ignores it")
			}
		case "inhibit_on_failure":
			r.InhibitOnFailure = truth(l)
		case "notify_up":
			r.NotifyUp = b.command(l, false)
		case "notify_down":
			r.NotifyDown = b.command(l, false)
		case "uthreshold":
			r.UThreshold = uint32(number(l))
		case "lthreshold":
			r.LThreshold = uint32(number(l))
		case "smtp_alert":
			mail = tristate(l)
		case "virtualhost":
			host = l.Arg(0)
		case "TCP_CHECK", "HTTP_GET", "SSL_GET", "MISC_CHECK", "PING_CHECK", "UDP_CHECK", "SMTP_CHECK", "DNS_CHECK":
			checks = append(checks, l)
		default:
			if k.Opens != "" {
				b.each(k.Opens, l.Children, func(*schema.Keyword, *syntax.Node) {}, nil)
			}
		}
	}, nil)
	if !good {
		return
	}
	r.SMTPAlert = pick(true, mail, b.cfg.Global.SMTPAlertChecker, b.cfg.Global.SMTPAlert)
	if id := v.Services[0]; id.Mark == 0 && a.Is6() != id.Addr.Is6() && r.Forward != model.TUN {
		b.fail(n.ArgPos(0), "only lb_kind TUN crosses families", "real server %s is not of the family of virtual server %s", a, v.Name)
		return
	}
	b.place(v, &r, n.ArgPos(1), "real server")
	if id := netip.AddrPortFrom(r.Addr, r.Port); !v.seen[id] {
		v.seen[id] = true
	} else {
		b.warn(n.Pos, "delete one of them", "virtual server %s: real server %s port %d is listed twice; the second is ignored, as keepalived does", v.Name, r.Addr, r.Port)
		return
	}
	path := "rs/" + v.Name + "/" + r.Addr.String() + ":" + itoa(int(r.ConfPort))
	b.places[path] = n.Pos
	for _, l := range n.Children {
		if l.Name() == "notify_up" || l.Name() == "notify_down" {
			b.places[path+"/"+l.Name()] = l.Pos
		}
	}
	settings := own.under(v.inherited)
	for _, l := range checks {
		if c, ok := b.healthCheck(v, &r, l, settings, own, host, path); ok {
			r.Checks = append(r.Checks, c)
		}
	}
	v.Real = append(v.Real, r)
}

// healthCheck binds one check of a real server. up are the settings of real
// and virtual server.
func (b *binder) healthCheck(v *virtual, r *model.RealServer, n *syntax.Node, up, own inherited, host, path string) (model.Check, bool) {
	c := model.Check{Kind: model.CheckKind(n.Name()), Addr: r.Addr, Port: r.ConfPort}
	set := unset()
	retry, gap := 1, time.Second
	switch c.Kind {
	case model.HTTPGet, model.SSLGet:
		gap = 3 * time.Second
		c.HTTPProtocol = "1.0"
	case model.MiscCheck:
		retry = 0
	case model.DNSCheck:
		retry, gap = 3, -1
	}
	checkHost, sni := "", false
	var urls []*syntax.Node
	block := n.Name()
	if block == "SSL_GET" {
		block = "HTTP_GET"
	}
	b.each(block, n.Children, func(k *schema.Keyword, l *syntax.Node) {
		if set.take(l) {
			return
		}
		switch k.Name {
		case "nb_get_retry":
			set.retry = number(l)
			b.mapped(l, "read as retry")
			if block != "HTTP_GET" {
				b.note(l.Pos, "write retry", "nb_get_retry is read as retry; keepalived ignores it in a %s", n.Name())
			}
		case "connect_ip":
			c.Addr, _ = schema.Addr(l.Arg(0))
		case "connect_port":
			c.Port = uint16(number(l))
		case "bindto":
			c.BindAddr, _ = schema.Addr(l.Arg(0))
		case "bind_port":
			c.BindPort = uint16(number(l))
		case "bind_if":
			c.BindInterface = l.Arg(0)
		case "fwmark":
			c.Mark = uint32(number(l))
		case "url":
			urls = append(urls, l)
		case "virtualhost":
			checkHost = l.Arg(0)
		case "enable_sni":
			sni = true
		case "sni_name":
			sni, c.SNIName = true, l.Arg(0)
		case "http_protocol":
			c.HTTPProtocol = l.Arg(0)
		case "fast_recovery":
			c.FastRecovery = truth(l)
		case "misc_path":
			user := c.Command.User
			c.Command = b.command(l, true)
			c.Command.User = user
			b.places[path+"/misc_path"] = l.Pos
		case "misc_timeout":
			c.MiscTimeout = seconds(l)
		case "misc_dynamic":
			c.Dynamic = true
		case "user":
			c.Command.User = b.user(l, l.Arg(0))
		}
	}, nil)
	s := set.under(up)
	c.ConnectTimeout, c.DelayLoop = s.timeout, s.loop
	c.Retry = orInt(s.retry, retry)
	if gap < 0 {
		gap = s.loop
	}
	c.DelayBeforeRetry = orDuration(s.delayBeforeRetry, gap)
	c.Warmup = orDuration(s.warmup, s.loop)
	c.Alpha = s.alpha == model.On
	switch c.Kind {
	case model.MiscCheck:
		if c.Command.IsZero() {
			b.fail(n.Pos, `add misc_path "COMMAND"`, "MISC_CHECK of real server %s has no command", r.Addr)
			return c, false
		}
		c.Addr, c.Port, c.ConnectTimeout = netip.Addr{}, 0, 0
		if c.MiscTimeout == 0 {
			c.MiscTimeout = max(v.loop, time.Second)
		}
		return c, true
	case model.HTTPGet, model.SSLGet:
		if len(urls) == 0 {
			b.warn(n.Pos, "add url { path / }", "%s of real server %s has no url and is ignored, as keepalived does", n.Name(), r.Addr)
			return c, false
		}
		for _, u := range urls {
			c.URLs = append(c.URLs, b.url(u, checkHost, host))
		}
		c.SNI = sni && c.Kind == model.SSLGet
		if c.SNI && c.SNIName == "" {
			// url, check, virtual server; the real server is passed over, as in keepalived.
			for _, u := range urls {
				for _, l := range u.Children {
					if l.Name() == "virtualhost" && c.SNIName == "" {
						c.SNIName = l.Arg(0)
					}
				}
			}
			for _, h := range []string{checkHost, v.host} {
				if c.SNIName == "" {
					c.SNIName = h
				}
			}
			if c.SNIName == "" {
				b.warn(n.Pos, "add virtualhost NAME", "enable_sni without a virtualhost sends no server name")
			}
		}
		if c.Kind == model.HTTPGet {
			c.SNI, c.SNIName = false, ""
		}
	}
	if c.Kind == model.PingCheck {
		c.Port = 0
	} else if c.Port == 0 {
		b.warn(n.Pos, "add connect_port N", "%s of real server %s has no port to probe", n.Name(), r.Addr)
	}
	return c, true
}

// url binds one url block.
func (b *binder) url(n *syntax.Node, checkHost, host string) model.URL {
	u := model.URL{VirtualHost: checkHost}
	if u.VirtualHost == "" {
		u.VirtualHost = host
	}
	var options []string
	var regexAt *syntax.Node
	b.each("url", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "path":
			u.Path = l.Arg(0)
		case "digest":
			u.Digest = strings.ToLower(l.Arg(0))
			if len(u.Digest) != 32 || strings.Trim(u.Digest, "0123456789abcdef") != "" {
				b.fail(l.ArgPos(0), "write the MD5 sum of the body, 32 hexadecimal digits", "digest %s is no MD5 sum", quote(l.Arg(0)))
				u.Digest = ""
			}
		case "status_code":
			for i, w := range l.Args() {
				lo, hi, ok := strings.Cut(w.Text, "-")
				if !ok {
					hi = lo
				}
				from, err1 := strconv.Atoi(lo)
				to, err2 := strconv.Atoi(hi)
				if err1 != nil || err2 != nil || from < 100 || to > 999 || to < from {
					b.fail(l.ArgPos(i), "write codes such as 200 or 200-299", "%s is no status code and no range of them", quote(w.Text))
					continue
				}
				u.Status = append(u.Status, model.StatusRange{From: from, To: to})
			}
		case "virtualhost":
			u.VirtualHost = l.Arg(0)
		case "regex":
			raw := strings.TrimSpace(strings.TrimPrefix(l.Raw, l.Name()))
			if words, ok := syntax.SplitCommand(raw); ok && len(words) > 0 {
				u.Regex = words[0]
			}
			regexAt = l
		case "regex_no_match":
			u.RegexNoMatch = true
		case "regex_options":
			for _, w := range l.Args() {
				options = append(options, w.Text)
			}
			for i, w := range l.Args() {
				if !slices.Contains([]string{"caseless", "multiline", "dotall", "utf"}, w.Text) {
					b.warn(l.ArgPos(i), "caseless, multiline and dotall are known", "regex_options: %s has no effect here", quote(w.Text))
				}
			}
		}
	}, nil)
	if u.Path == "" {
		if !has(n, "path") {
			b.warn(n.Pos, "add path /", "the url names no path; / is used")
		}
		u.Path = "/"
	}
	if len(u.Status) == 0 {
		u.Status = []model.StatusRange{{From: 200, To: 299}}
	}
	if regexAt != nil {
		flags := ""
		for _, o := range options {
			flags += map[string]string{"caseless": "i", "multiline": "m", "dotall": "s"}[o]
		}
		if flags != "" {
			u.Regex = "(?" + flags + ")" + u.Regex
		}
		if _, err := regexp.Compile(u.Regex); err != nil || u.Regex == "" {
			reason := "it is empty"
			if err != nil {
				reason = strings.TrimPrefix(err.Error(), "error parsing regexp: ")
			}
			b.fail(regexAt.ArgPos(0), "patterns here are RE2: no look-ahead, no back references", "regex cannot be used: %s", reason)
			u.Regex = ""
		}
	}
	return u
}
