// Package first is what a box must be told before it can be reached: its name,
// its management address and the key of its first user, each with its check and
// how to mend what is wrong. The serial console asks for it, and the kernel's
// command line may bring it.
package first

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/bind"
	"ballast/configs/internal/lazy"
)

// Answers are what was told. Empty fields were not.
type Answers struct {
	Host      string
	Interface string
	Address   string // "dhcp", or IP/LENGTH
	Gateway   string // none with dhcp
	User      string
	Key       string // one line of a .pub file
}

// DHCP is the address of a box that asks for one.
const DHCP = "dhcp"

var nicName = lazy.Regexp(`^[A-Za-z0-9_.-]{1,15}$`)

// Host checks a host name.
func Host(s string) error {
	if !bind.HostName(s) {
		return errors.New("a host name has letters, digits, - and ., at most 64, and begins and ends with a letter or digit; for example lb1")
	}
	return nil
}

// Interface checks the name of a network interface against those that are there.
func Interface(s string, have []string) error {
	switch {
	case slices.Contains(have, s):
		return nil
	case len(have) == 0:
		return errors.New("no network interface is there: is its driver missing? \"show log kernel\" tells")
	case !nicName().MatchString(s):
		return errors.New("that is no name of a network interface")
	}
	return fmt.Errorf("it is not there; there are: %s", strings.Join(have, ", "))
}

// Address checks an address with its length, or "dhcp".
func Address(s string) error {
	if s == DHCP {
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
			return fmt.Errorf("the length of the network is missing: write %s/24 when its mask is 255.255.255.0", a)
		}
		return errors.New("write IP/LENGTH, for example 192.0.2.11/24, or dhcp")
	}
	a := p.Addr()
	switch {
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is no address of a box", a)
	case a.Is4() && p.Bits() < 31 && p.Bits() > 0 && (a == p.Masked().Addr() || a == last(p)):
		return fmt.Errorf("%s is the network %s itself or its broadcast address; write the address of this box", a, p.Masked())
	}
	return nil
}

// last is the broadcast address of an IPv4 network.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// Gateway checks the next hop of a box with an address; empty: none.
func Gateway(s, address string) error {
	if s == "" {
		return nil
	}
	if address == DHCP {
		return errors.New("with dhcp the gateway comes from there: leave it out")
	}
	g, err := netip.ParseAddr(s)
	if err != nil || g.Zone() != "" {
		return errors.New("write an address, for example 192.0.2.1, or nothing for none")
	}
	p, err := netip.ParsePrefix(address)
	switch {
	case err != nil:
		return errors.New("a gateway needs an address of the box")
	case g == p.Addr():
		return fmt.Errorf("%s is this box itself", g)
	case g.IsLinkLocalUnicast() && g.Is6() && p.Addr().Is6():
		return nil
	case !p.Contains(g):
		return fmt.Errorf("%s is not in the network %s of this box; is the length /%d right?", g, p.Masked(), p.Bits())
	}
	return nil
}

// User checks a user name.
func User(s string) error {
	if !bind.LoginName(s) {
		return errors.New("a user name has lower-case letters, digits, - and _, at most 32, a letter first; for example ann")
	}
	return nil
}

// Key checks one line of a .pub file.
func Key(s string) error {
	if why := bind.PublicKey(s); why != "" {
		return fmt.Errorf("%s; paste the one line of a .pub file, such as ~/.ssh/id_ed25519.pub: it begins with ssh-ed25519", why)
	}
	return nil
}

// Text is the configuration that says so: blocks only for what was told.
func (a Answers) Text() string {
	var b strings.Builder
	if a.Host != "" || a.Key != "" {
		b.WriteString("system {\n")
		if a.Host != "" {
			fmt.Fprintf(&b, "    host_name %s\n", a.Host)
		}
		if a.Key != "" {
			fmt.Fprintf(&b, "    login %s {\n        role admin\n        key \"%s\"\n    }\n", a.User, strings.Join(strings.Fields(a.Key), " "))
		}
		b.WriteString("}\n")
	}
	if a.Interface != "" && a.Address != "" {
		line := "address " + a.Address
		if a.Address == DHCP {
			line = DHCP
		}
		fmt.Fprintf(&b, "interface %s {\n    %s\n}\n", a.Interface, line)
	}
	if a.Gateway != "" {
		fmt.Fprintf(&b, "route default via %s", a.Gateway)
		if a.Interface != "" {
			fmt.Fprintf(&b, " dev %s", a.Interface)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Words are those of the kernel's command line that tell the same.
const (
	WordHost      = "ballast.host"
	WordInterface = "ballast.interface"
	WordAddress   = "ballast.address"
	WordGateway   = "ballast.gateway"
	WordUser      = "ballast.login"
	WordKey       = "ballast.key" // its blanks may be written as commas
)

// maxWord bounds one of them: a key of RSA with 8192 bits has 1,400 bytes.
const maxWord = 2048

// FromWords reads answers from words. What is wrong is left out, and told.
// nics are the network interfaces of the box; where none is named the first of
// them gets the address.
func FromWords(get func(word string) string, nics []string) (a Answers, faults []error) {
	take := func(word, standard string, check func(string) error) string {
		v := get(word)
		if v == "" {
			v = standard
		}
		if v == "" {
			return ""
		}
		err := check(v)
		if len(v) > maxWord {
			err = fmt.Errorf("it has more than %d bytes", maxWord)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: it is left out: %w", word, err))
			return ""
		}
		return v
	}
	a.Host = take(WordHost, "", Host)
	if a.Address = take(WordAddress, "", Address); a.Address != "" {
		standard := ""
		if len(nics) > 0 {
			standard = nics[0]
		}
		if a.Interface = take(WordInterface, standard, func(s string) error { return Interface(s, nics) }); a.Interface == "" {
			if len(nics) == 0 {
				faults = append(faults, fmt.Errorf("%s: it is left out: %w", WordAddress, Interface("", nil)))
			}
			a.Address = ""
		}
	}
	if a.Address != "" {
		a.Gateway = take(WordGateway, "", func(s string) error { return Gateway(s, a.Address) })
	}
	key := func(s string) error { return Key(strings.ReplaceAll(s, ",", " ")) }
	if a.Key = strings.ReplaceAll(take(WordKey, "", key), ",", " "); a.Key != "" {
		if a.User = take(WordUser, "admin", User); a.User == "" {
			a.Key = "" // whose it is, is not known
		}
	}
	return a, faults
}
