package bind

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// probe binds one check of a real server.
type probe struct {
	*binder
	v    *virtual
	r    *model.RealServer
	host string // virtualhost of the real server, else the virtual server's

	c         model.Check
	set       inherited
	checkHost string
	sni       bool
	weightSet bool
	urls      []*syntax.Node
	hosts     []*syntax.Node
}

// dnsTypes are the types that DNS_CHECK asks for.
var dnsTypes = []string{"A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA", "RRSIG", "DNSKEY"}

// bind gives the check, and one for each of SMTP_CHECK's host blocks. up are
// the settings of real and virtual server.
func (p *probe) bind(n *syntax.Node, up inherited) []model.Check {
	p.c = model.Check{Kind: model.CheckKind(n.Name()), Addr: p.r.Addr, Port: p.r.ConfPort, LogAllFailures: p.cfg.Global.CheckerLogAllFailures}
	p.set = unset()
	retry, gap := 1, time.Second
	switch p.c.Kind {
	case model.HTTPGet, model.SSLGet:
		gap = 3 * time.Second
		p.c.HTTPProtocol = "1.0"
	case model.MiscCheck:
		retry = 0
	case model.SMTPCheck:
		p.c.HELO = "smtpchecker.keepalived.org"
	case model.DNSCheck:
		retry, gap = 3, -1
		p.c.DNSType, p.c.DNSName = "SOA", "."
	case model.UDPCheck:
		p.c.MaxReply = 255
	}
	block := n.Name()
	if block == "SSL_GET" {
		block = "HTTP_GET"
	}
	p.each(block, n.Children, func(k *schema.Keyword, l *syntax.Node) {
		if !p.set.take(l) && !p.connection(&p.c, k, l) {
			p.line(block, k, l)
		}
	}, nil)
	p.inherit(&p.c, p.set.under(up), retry, gap)
	return p.finish(n, up, retry, gap)
}

// inherit resolves the settings that pass down to a check.
func (p *probe) inherit(c *model.Check, s inherited, retry int, gap time.Duration) {
	c.ConnectTimeout, c.DelayLoop = s.timeout, s.loop
	c.Retry = orInt(s.retry, retry)
	if gap < 0 {
		gap = s.loop
	}
	c.DelayBeforeRetry = orDuration(s.delayBeforeRetry, gap)
	c.Warmup = orDuration(s.warmup, s.loop)
	c.Alpha = s.alpha == model.On
	c.ThroughVIP = s.through == model.On
}

// connection reads a line about where a probe goes.
func (p *probe) connection(c *model.Check, k *schema.Keyword, l *syntax.Node) bool {
	switch k.Name {
	case "connect_ip":
		c.Addr, _ = schema.Addr(l.Arg(0))
	case "connect_port":
		c.Port = uint16(number(l))
	case "bindto":
		c.BindAddr, _ = schema.Addr(l.Arg(0))
	case "bind_port":
		c.BindPort = uint16(number(l))
	case "bind_if":
		if p.ifname(l, 0, l.Arg(0)) {
			c.BindInterface = l.Arg(0)
		}
	case "fwmark":
		c.Mark = uint32(number(l))
	default:
		return false
	}
	return true
}

// line reads a line of one kind of check.
func (p *probe) line(block string, k *schema.Keyword, l *syntax.Node) {
	c := &p.c
	switch k.Name {
	case "nb_get_retry":
		p.set.retry = number(l)
		p.mapped(l, "read as retry")
		if block != "HTTP_GET" {
			p.note(l.Pos, "write retry", "nb_get_retry is read as retry; keepalived ignores it in a %s", c.Kind)
		}
	case "log_all_failures":
		c.LogAllFailures = truth(l)
	case "half_open":
		c.HalfOpen = truth(l)
	case "url":
		p.urls = append(p.urls, l)
	case "virtualhost":
		p.checkHost = l.Arg(0)
	case "enable_sni":
		p.sni = true
	case "sni_name":
		p.sni, c.SNIName = true, l.Arg(0)
	case "tls_compliant":
		c.TLSCompliant = true
	case "tls_verify":
		c.TLSVerify = truth(l)
	case "http_protocol":
		c.HTTPProtocol = l.Arg(0)
		if c.HTTP2 = l.Arg(0) == "2"; c.HTTP2 {
			c.HTTPProtocol = "1.1" // not read: a server that does not speak HTTP/2 fails
		}
	case "fast_recovery":
		c.FastRecovery = truth(l)
	case "helo_name":
		if c.HELO = l.Arg(0); strings.ContainsFunc(c.HELO, func(r rune) bool { return r <= ' ' || r == 0x7f }) || c.HELO == "" {
			p.fail(l.ArgPos(0), "write a host name", "helo_name %s is no host name", quote(c.HELO))
		}
	case "host":
		p.hosts = append(p.hosts, l)
	case "type":
		if c.DNSType = strings.ToUpper(l.Arg(0)); !slices.Contains(dnsTypes, c.DNSType) {
			p.fail(l.ArgPos(0), "write one of "+strings.Join(dnsTypes, ", "), "DNS_CHECK: %s is no type that can be asked for", quote(l.Arg(0)))
			c.DNSType = "SOA"
		}
	case "name":
		if c.Kind == model.DNSCheck {
			p.dnsName(l)
			return
		}
		p.session(l)
	case "payload":
		c.Payload, _ = p.hexBytes(l, false)
	case "require_reply":
		if c.RequireReply = true; len(l.Words) > 1 {
			c.Reply, c.ReplyMask = p.hexBytes(l, true)
		}
	case "min_reply_length":
		c.MinReply = number(l)
	case "max_reply_length":
		c.MaxReply = number(l)
	case "track_file":
		if t := p.checked(files, l); t != nil {
			c.Name = l.Arg(0)
			if !p.weightSet {
				c.Weight, c.Reverse = t.weight, t.reverse
			}
		}
	case "weight":
		weigh(l, &c.Weight, &c.Reverse)
		p.weightSet = true
	case "misc_path":
		user := c.Command.User
		c.Command = p.command(l, true)
		c.Command.User = user
		p.stands(p.v, p.r, "misc_path", l.Pos)
	case "misc_timeout":
		c.MiscTimeout = seconds(l)
	case "misc_dynamic":
		c.Dynamic = true
	case "user":
		c.Command.User = p.user(l, l.Arg(0))
	}
}

// checked finds the block that a check names.
func (p *probe) checked(k kind, l *syntax.Node) *tracker {
	t := p.trackers[k.block][l.Arg(0)]
	if t == nil {
		fix := p.meant(l.Arg(0), func() (out []string) {
			for name := range p.trackers[k.block] {
				out = append(out, name)
			}
			slices.Sort(out)
			return out
		}, "define it with "+k.block+" "+l.Arg(0)+" { … }")
		p.warn(l.ArgPos(0), fix, "there is no %s %s", k.block, quote(l.Arg(0)))
	}
	return t
}

// session finds the bfd_instance of BFD_CHECK.
func (p *probe) session(l *syntax.Node) {
	t := p.checked(sessions, l)
	switch {
	case t == nil:
	case !t.checker:
		p.warn(l.ArgPos(0), "add checker to bfd_instance "+l.Arg(0), "bfd_instance %s tells VRRP only", quote(l.Arg(0)))
	default:
		p.c.Name = l.Arg(0)
	}
}

// dnsName reads the name to ask for: labels of at most 63 bytes, 253 in all
// (RFC 1035 section 2.3.4).
func (p *probe) dnsName(l *syntax.Node) {
	name := l.Arg(0)
	bad := name == "" || len(strings.TrimSuffix(name, ".")) > 253
	if name != "." {
		for _, label := range strings.Split(strings.TrimSuffix(name, "."), ".") {
			bad = bad || label == "" || len(label) > 63
		}
	}
	if bad {
		p.fail(l.ArgPos(0), "labels have 1…63 characters, the whole 253", "DNS_CHECK: %s is no domain name", quote(name))
		return
	}
	p.c.DNSName = name
}

// maxPayload is what one UDP packet carries.
const maxPayload = 65507

// hexBytes reads bytes in hexadecimal, in one word or several. With wild an x
// stands for any digit; the mask has a 0 there.
func (p *probe) hexBytes(l *syntax.Node, wild bool) (data, mask []byte) {
	var digits, care []byte
	for _, w := range l.Args() {
		word := w.Text
		if len(word)%2 == 1 {
			word = "0" + word // each word is whole bytes
		}
		for i := range len(word) {
			c := word[i]
			if wild && (c == 'x' || c == 'X') {
				digits, care = append(digits, '0'), append(care, '0')
				continue
			}
			digits, care = append(digits, c), append(care, 'f')
		}
	}
	data, err := hex.DecodeString(string(digits))
	if err != nil || len(data) == 0 || len(data) > maxPayload {
		p.fail(l.ArgPos(0), "write two digits 0-9 a-f for each byte", "%s: %s is not hexadecimal", l.Name(), quote(l.Arg(0)))
		return nil, nil
	}
	mask, _ = hex.DecodeString(string(care))
	return data, mask
}

// finish checks what belongs together in one kind of check.
func (p *probe) finish(n *syntax.Node, up inherited, retry int, gap time.Duration) []model.Check {
	c := &p.c
	switch c.Kind {
	case model.MiscCheck:
		if c.Command.IsZero() {
			p.fail(n.Pos, `add misc_path "COMMAND"`, "MISC_CHECK of real server %s has no command", p.r.Addr)
			return nil
		}
		c.Addr, c.Port, c.ConnectTimeout, c.ThroughVIP = netip.Addr{}, 0, 0, false
		if c.MiscTimeout == 0 {
			c.MiscTimeout = max(p.v.loop, time.Second)
		}
		return []model.Check{*c}
	case model.BFDCheck, model.FileCheck:
		if c.Name == "" {
			word := map[model.CheckKind]string{model.BFDCheck: "name BFD", model.FileCheck: "track_file NAME"}[c.Kind]
			p.warn(n.Pos, "add "+word, "%s of real server %s watches nothing and is ignored, as keepalived does", c.Kind, p.r.Addr)
			return nil
		}
		return []model.Check{{Kind: c.Kind, Name: c.Name, Weight: c.Weight, Reverse: c.Reverse, Alpha: c.Alpha && c.Kind == model.BFDCheck}}
	case model.HTTPGet, model.SSLGet:
		if !p.http(n) {
			return nil
		}
	case model.UDPCheck:
		if c.MinReply > c.MaxReply {
			p.fail(n.Pos, "write min_reply_length of at most max_reply_length", "UDP_CHECK of real server %s: no reply has %d…%d bytes", p.r.Addr, c.MinReply, c.MaxReply)
		}
		if !c.RequireReply && has(n, "min_reply_length", "max_reply_length") {
			p.note(n.Pos, "add require_reply", "UDP_CHECK of real server %s: the length of a reply counts with require_reply only", p.r.Addr)
		}
	}
	out := []model.Check{*c}
	if len(p.hosts) > 0 {
		// Each host is a further check beside that of the block around it. Where
		// the probe goes is its own affair, all else is as in that block.
		for _, l := range p.hosts {
			h := *c
			h.Addr, h.Port = p.r.Addr, p.r.ConfPort
			h.BindAddr, h.BindPort, h.BindInterface, h.Mark = netip.Addr{}, 0, "", 0
			set := p.set
			p.each("smtp_host", l.Children, func(k *schema.Keyword, l *syntax.Node) {
				if !set.take(l) && !p.connection(&h, k, l) && k.Name == "log_all_failures" {
					h.LogAllFailures = truth(l)
				}
			}, nil)
			p.inherit(&h, set.under(up), retry, gap)
			out = append(out, h)
		}
	}
	for i := range out {
		p.finishConnection(n, &out[i])
	}
	return out
}

// finishConnection checks where the probe goes.
func (p *probe) finishConnection(n *syntax.Node, c *model.Check) {
	if c.Kind == model.PingCheck {
		c.Port = 0
	} else if c.Port == 0 {
		p.warn(n.Pos, "add connect_port N", "%s of real server %s has no port to probe", n.Name(), p.r.Addr)
	}
	if c.BindAddr.IsValid() && c.BindAddr.Is6() != c.Addr.Is6() {
		p.fail(lineOf(n, "bindto"), "", "%s of real server %s: the source %s and the target %s are of different families", c.Kind, p.r.Addr, c.BindAddr, c.Addr)
	}
	if !c.ThroughVIP {
		return
	}
	why := ""
	switch {
	case p.r.Forward == model.NAT:
		why = "it is for lb_kind DR and TUN"
	case !p.v.Services[0].Addr.IsValid():
		why = "a firewall mark has no address to probe"
	case has(n, "connect_ip") || c.Addr != p.r.Addr:
		why = "the check names another address"
	}
	if why != "" {
		p.warn(lineOf(n, "through_vip"), "delete through_vip, or write through_vip off", "%s of real server %s: through_vip does not count: %s", c.Kind, p.r.Addr, why)
		c.ThroughVIP = false
	}
}

// http resolves the urls and names of HTTP_GET and SSL_GET.
func (p *probe) http(n *syntax.Node) bool {
	c := &p.c
	if len(p.urls) == 0 {
		p.warn(n.Pos, "add url { path / }", "%s of real server %s has no url and is ignored, as keepalived does", n.Name(), p.r.Addr)
		return false
	}
	for _, u := range p.urls {
		c.URLs = append(c.URLs, p.url(u, p.checkHost, p.host))
	}
	if c.Kind == model.HTTPGet {
		if c.TLSVerify {
			p.warn(lineOf(n, "tls_verify"), "write SSL_GET", "HTTP_GET of real server %s: there is no certificate to verify", p.r.Addr)
		}
		c.SNIName, c.TLSVerify = "", false
		return true
	}
	c.SNI = p.sni
	if c.SNI && c.SNIName == "" {
		// url, check, virtual server; the real server is passed over, as in keepalived.
		for _, u := range p.urls {
			for _, l := range u.Children {
				if l.Name() == "virtualhost" && c.SNIName == "" {
					c.SNIName = l.Arg(0)
				}
			}
		}
		for _, h := range []string{p.checkHost, p.v.host} {
			if c.SNIName == "" {
				c.SNIName = h
			}
		}
		if c.SNIName == "" {
			p.warn(n.Pos, "add virtualhost NAME", "enable_sni without a virtualhost sends no server name")
		}
	}
	if c.TLSVerify && c.SNIName == "" {
		p.note(lineOf(n, "tls_verify"), "add enable_sni and virtualhost NAME", "SSL_GET of real server %s: without a server name the certificate must be valid for the address %s", p.r.Addr, c.Addr)
	}
	return true
}
