package netboot

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"ballast/image/layout"
)

// kind is what asks: which program of the box, and so what it can load.
type kind int

const (
	other    kind = iota // an operating system, or a machine that this firmware is not for
	bios                 // PXE of a BIOS machine
	ipxe                 // iPXE, in the card or loaded by one of the others
	uefi                 // PXE of a UEFI machine
	httpBoot             // HTTP boot of a UEFI machine
	director             // this firmware itself, without a word of who sent it
)

func (k kind) String() string {
	return [...]string{"something else", "BIOS PXE", "iPXE", "UEFI PXE", "UEFI HTTP boot", "the firmware"}[k]
}

// Classes of option 60.
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// Options that the library has no name for, or no reader that takes what is
// really sent.
const (
	optUserClass = dhcpv4.GenericOptionCode(77)
	optIPXE      = dhcpv4.GenericOptionCode(175)
)

// ipxeHTTP is iPXE's own option that tells that it was built with HTTP.
const ipxeHTTP = 0x13

// kindOf tells what sent a request; why is what keeps it from booting, if other.
func kindOf(m *dhcpv4.DHCPv4) (k kind, why string) {
	class := m.ClassIdentifier()
	arch := m.ClientArch()
	has := func(as ...iana.Arch) bool {
		return slices.ContainsFunc(as, func(a iana.Arch) bool { return slices.Contains(arch, a) })
	}
	switch {
	case class == layout.VendorClass:
		return director, ""
	case strings.HasPrefix(class, classHTTP):
		if len(arch) == 0 || has(iana.EFI_X86_64_HTTP, iana.EFI_X86_64) {
			return httpBoot, ""
		}
	case !strings.HasPrefix(class, classPXE):
		return other, ""
	case bytes.Contains(m.Options.Get(optUserClass), []byte("iPXE")):
		own := m.Options.Get(optIPXE)
		if own == nil || encapsulated(own, ipxeHTTP) {
			return ipxe, ""
		}
		// An iPXE without HTTP is loaded over, as any other PXE.
		fallthrough
	default:
		switch {
		case len(arch) == 0 || has(iana.INTEL_X86PC):
			return bios, ""
		case has(iana.EFI_X86_64, iana.EFI_BC):
			return uefi, ""
		}
	}
	return other, fmt.Sprintf("its architecture is %v: this firmware is for x86-64", arch)
}

// encapsulated reports whether an option that holds options (RFC 2132, section
// 8.4) has this one, with a value other than zero.
func encapsulated(b []byte, code byte) bool {
	for len(b) >= 2 && b[0] != 0xff {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			return false
		}
		if b[0] == code {
			return !slices.Equal(b[2:2+n], make([]byte, n)) || n == 0
		}
		b = b[2+n:]
	}
	return false
}

// place is where a box is served.
type place struct {
	Server netip.Prefix // own address and network
	Addr   netip.Addr   // of the box, where this server gives it one
	Proxy  bool         // another DHCP server gives addresses
	Base   string       // URL of the folder for this boot, ending in "/"
}

// file is what a kind of client is told to load: a name for TFTP, or a URL.
func (p place) file(k kind) string {
	switch k {
	case bios:
		return layout.NetUndionly
	case uefi:
		return layout.NetFirmware
	case ipxe:
		return p.Base + layout.NetScript
	case httpBoot:
		return p.Base + layout.NetFirmware
	case director:
		return p.Base
	}
	return ""
}

// proxyPort is where PXE clients ask a server that gives no addresses.
const proxyPort = 4011

// leaseTime is for as long as a boot, and the fetching after it, may last.
const leaseTime = time.Hour

// answer makes the answer to a request that came in on a port; nil: there is
// none to give. It is pure. note says what was done, or why nothing was.
func answer(m *dhcpv4.DHCPv4, port int, p place) (r *dhcpv4.DHCPv4, note string) {
	if m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 {
		return nil, ""
	}
	if !m.GatewayIPAddr.IsUnspecified() {
		return nil, "asks through a DHCP relay: serve it from a box of its own network"
	}
	k, why := kindOf(m)
	if k == other {
		return nil, why
	}
	own := net.IP(p.Server.Addr().AsSlice())
	var kindOfAnswer dhcpv4.MessageType
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		if port != dhcpv4.ServerPort {
			return nil, ""
		}
		kindOfAnswer = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		kindOfAnswer = dhcpv4.MessageTypeAck
		if port == proxyPort {
			break // it was sent to this box, though it may name the server of its address
		}
		if id := m.ServerIdentifier(); id == nil {
			return nil, "" // it asks whoever gave it an address before, or only for options
		} else if !id.Equal(own) {
			return nil, "takes the address of the DHCP server " + id.String()
		}
		if !p.Proxy {
			want := m.RequestedIPAddress()
			if want == nil {
				want = m.ClientIPAddr
			}
			if !want.Equal(net.IP(p.Addr.AsSlice())) {
				return refuse(m, own), fmt.Sprintf("wants the address %v: refused", want)
			}
		}
	case dhcpv4.MessageTypeInform:
		kindOfAnswer = dhcpv4.MessageTypeAck
	default:
		return nil, ""
	}
	file := p.file(k)
	mods := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kindOfAnswer), dhcpv4.WithServerIP(own),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(own)),
		func(d *dhcpv4.DHCPv4) {
			// Old boot ROMs read the header only; what does not fit there is for those
			// that read options.
			if d.ServerHostName = p.Server.Addr().String(); len(file) < 128 {
				d.BootFileName = file
			}
		},
	}
	option := file
	if k == bios || k == uefi {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptTFTPServerName(p.Server.Addr().String())))
		// There are boot ROMs that read this option up to a zero byte, and would ask by
		// TFTP for a name that ends in the code of the next option.
		option += "\x00"
	}
	mods = append(mods, dhcpv4.WithOption(dhcpv4.OptBootFileName(option)))
	switch k {
	case director:
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(layout.VendorClass)))
	case httpBoot:
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(classHTTP)))
	default:
		// PXE: discovery control 8, the file of this answer is to be used as it is,
		// without asking for others (PXE specification 2.1, section 2.2).
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(classPXE)),
			dhcpv4.WithGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
	}
	if id := m.Options.Get(dhcpv4.OptionClientMachineIdentifier); id != nil {
		mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	}
	addressed := !p.Proxy && port == dhcpv4.ServerPort && m.MessageType() != dhcpv4.MessageTypeInform
	if addressed {
		mods = append(mods, dhcpv4.WithYourIP(net.IP(p.Addr.AsSlice())), dhcpv4.WithNetmask(net.CIDRMask(p.Server.Bits(), 32)),
			dhcpv4.WithLeaseTime(uint32(leaseTime/time.Second)))
	}
	r, err := dhcpv4.NewReplyFromRequest(m, mods...)
	if err != nil {
		return nil, ""
	}
	what := fmt.Sprintf("%v asks what to boot: %s", k, layoutName(file))
	if addressed {
		what += fmt.Sprintf(", at %s", p.Addr)
	}
	return r, what
}

// refuse is a DHCPNAK.
func refuse(m *dhcpv4.DHCPv4, own net.IP) *dhcpv4.DHCPv4 {
	r, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(own)))
	if err != nil {
		return nil
	}
	return r
}

// layoutName is a file without the URL before it, which has the word of this
// boot in it.
func layoutName(file string) string {
	name := file[strings.LastIndexByte(file, '/')+1:]
	if name == "" {
		return "where its configuration is"
	}
	return name
}

// otherServer is the DHCP server whose address a box takes with this request;
// invalid: none, or own.
func otherServer(m *dhcpv4.DHCPv4, own netip.Addr) netip.Addr {
	if m.MessageType() != dhcpv4.MessageTypeRequest {
		return netip.Addr{}
	}
	id, ok := netip.AddrFromSlice(m.ServerIdentifier().To4())
	if !ok || id == own || id.IsUnspecified() {
		return netip.Addr{}
	}
	return id
}

// destination is where an answer goes.
func destination(m *dhcpv4.DHCPv4, from netip.AddrPort, port int) netip.AddrPort {
	switch {
	case port != dhcpv4.ServerPort && from.Addr().Is4() && !from.Addr().IsUnspecified():
		return from
	case !m.ClientIPAddr.IsUnspecified():
		if a, ok := netip.AddrFromSlice(m.ClientIPAddr.To4()); ok {
			return netip.AddrPortFrom(a, dhcpv4.ClientPort)
		}
	}
	// To all, also where the box did not ask for it: to reach it under an address
	// that it does not have yet would take a raw socket, and so a capability.
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ClientPort)
}
