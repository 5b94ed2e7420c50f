package follow

import (
	"slices"

	"ballast/configs/model"
	"ballast/services/ipc"
)

// secrets are kinds of secrets in a configuration. A service gets those that
// it has use for: one that strangers talk to cannot give away the others.
type secrets uint8

const (
	routerSecrets secrets = 1 << iota // passwords and keys of VRRP and of the heartbeat
	mailSecrets
	keySecrets // password of the client certificate's key
	snmpSecrets

	noSecrets  secrets = 0
	allSecrets         = routerSecrets | mailSecrets | keySecrets | snmpSecrets
)

// due are the secrets that a user may have. own is the user that conf runs as.
func due(uid, own uint32) secrets {
	switch uid {
	case ipc.UIDRoot, own:
		return allSecrets
	case ipc.UIDVRRP:
		return routerSecrets
	case ipc.UIDNotify:
		return mailSecrets
	case ipc.UIDHealth:
		return keySecrets
	case ipc.UIDSNMP:
		return snmpSecrets
	}
	return noSecrets
}

// concerned are the users who show problems to people.
func concerned(uid, own uint32) bool {
	return uid == ipc.UIDRoot || uid == own || uid == ipc.UIDConsole
}

// withheld stands where a secret is: that there is one is no secret.
var withheld = []byte{0}

// redact is c with no secrets but those of s. c is not changed.
func redact(c model.Config, s secrets) model.Config {
	text := func(p *string, kind secrets) {
		if *p != "" && s&kind == 0 {
			*p = string(withheld)
		}
	}
	text(&c.Global.SMTPPassword, mailSecrets)
	text(&c.SSL.Password, keySecrets)
	text(&c.Global.SNMP.Community, snmpSecrets)
	if s&routerSecrets != 0 {
		return c
	}
	if c.Heartbeat != nil {
		h := *c.Heartbeat
		h.Key = withheld
		c.Heartbeat = &h
	}
	c.Instances = slices.Clone(c.Instances)
	for i := range c.Instances {
		in := &c.Instances[i]
		if in.AuthPass != nil {
			in.AuthPass = withheld
		}
		if in.AuthHMAC != nil {
			h := *in.AuthHMAC
			h.Keys = slices.Clone(h.Keys)
			for j := range h.Keys {
				h.Keys[j].Key = withheld
			}
			in.AuthHMAC = &h
		}
	}
	return c
}
