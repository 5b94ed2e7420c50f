package netboot

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"ballast/configs/model"
	"ballast/image/layout"
	"ballast/services/ipc/status"
)

var here = place{Server: netip.MustParsePrefix("192.0.2.11/25"), Addr: netip.MustParseAddr("192.0.2.12"), Base: "http://192.0.2.11:1914/WORD/"}

func message(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 12}, mods...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestKinds(t *testing.T) {
	user := func(s string) dhcpv4.Modifier {
		return func(d *dhcpv4.DHCPv4) { d.UpdateOption(dhcpv4.OptGeneric(optUserClass, []byte(s))) }
	}
	features := func(b ...byte) dhcpv4.Modifier {
		return func(d *dhcpv4.DHCPv4) { d.UpdateOption(dhcpv4.OptGeneric(optIPXE, b)) }
	}
	for _, tt := range []struct {
		want kind
		why  string
		mods []dhcpv4.Modifier
	}{
		{bios, "", []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC)}},
		{bios, "", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))}},
		{uefi, "", []dhcpv4.Modifier{class("PXEClient:Arch:00007", iana.EFI_BC)}},
		{uefi, "", []dhcpv4.Modifier{class("PXEClient:Arch:00009", iana.EFI_X86_64)}},
		{other, "architecture", []dhcpv4.Modifier{class("PXEClient:Arch:00006", iana.EFI_IA32)}}, // UEFI of 32 bits starts nothing of 64
		{other, "architecture", []dhcpv4.Modifier{class("PXEClient:Arch:00011", iana.EFI_ARM64)}},
		{other, "architecture", []dhcpv4.Modifier{class("HTTPClient:Arch:00019", iana.EFI_ARM64_HTTP)}},
		{httpBoot, "", []dhcpv4.Modifier{class("HTTPClient:Arch:00016:UNDI:003001", iana.EFI_X86_64_HTTP)}},
		{ipxe, "", []dhcpv4.Modifier{class("PXEClient:Arch:00000", iana.INTEL_X86PC), user("iPXE")}},
		{ipxe, "", []dhcpv4.Modifier{class("PXEClient:Arch:00000", iana.INTEL_X86PC), user("\x04iPXE"), features(0xb1, 2, 1, 2, ipxeHTTP, 1, 1, 0xff)}},
		{bios, "", []dhcpv4.Modifier{class("PXEClient:Arch:00000", iana.INTEL_X86PC), user("iPXE"), features(0xb1, 2, 1, 2)}}, // without HTTP
		{bios, "", []dhcpv4.Modifier{class("PXEClient:Arch:00000", iana.INTEL_X86PC), user("iPXE"), features(ipxeHTTP, 9)}},   // cut
		{director, "", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier(layout.VendorClass))}},
		{other, "", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("udhcp"))}},
		{other, "", nil},
	} {
		m := message(t, tt.mods...)
		if k, why := kindOf(m); k != tt.want || tt.why == "" != (why == "") || !strings.Contains(why, tt.why) {
			t.Errorf("%v: %v %q, want %v %q", m.Summary(), k, why, tt.want, tt.why)
		}
	}
}

func TestAnswers(t *testing.T) {
	uefiPXE := class("PXEClient:Arch:00007", iana.EFI_BC)
	request := dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)
	of := func(server string) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(server)))
	}
	wants := func(a string) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a)))
	}
	proxy := here
	proxy.Proxy, proxy.Addr = true, netip.Addr{}
	for _, tt := range []struct {
		name string
		at   place
		port int
		mods []dhcpv4.Modifier
		want dhcpv4.MessageType // none: no answer
		addr string
		note string
	}{
		{"discover", here, 67, []dhcpv4.Modifier{uefiPXE}, dhcpv4.MessageTypeOffer, "192.0.2.12", "UEFI PXE asks what to boot: fw.efi, at 192.0.2.12"},
		{"request", here, 67, []dhcpv4.Modifier{uefiPXE, request, of("192.0.2.11"), wants("192.0.2.12")}, dhcpv4.MessageTypeAck, "192.0.2.12", "fw.efi"},
		{"another address", here, 67, []dhcpv4.Modifier{uefiPXE, request, of("192.0.2.11"), wants("192.0.2.99")}, dhcpv4.MessageTypeNak, "0.0.0.0", "refused"},
		{"of another server", here, 67, []dhcpv4.Modifier{uefiPXE, request, of("192.0.2.1"), wants("192.0.2.99")}, dhcpv4.MessageTypeNone, "", "takes the address of the DHCP server 192.0.2.1"},
		{"of nobody", here, 67, []dhcpv4.Modifier{uefiPXE, request, wants("192.0.2.12")}, dhcpv4.MessageTypeNone, "", ""},
		{"beside another", proxy, 67, []dhcpv4.Modifier{uefiPXE}, dhcpv4.MessageTypeOffer, "0.0.0.0", "fw.efi"},
		{"port 4011", proxy, 4011, []dhcpv4.Modifier{uefiPXE, request}, dhcpv4.MessageTypeAck, "0.0.0.0", "fw.efi"},
		{"port 4011, by the server of its address", proxy, 4011, []dhcpv4.Modifier{uefiPXE, request, of("192.0.2.1")}, dhcpv4.MessageTypeAck, "0.0.0.0", "fw.efi"},
		{"discover on port 4011", proxy, 4011, []dhcpv4.Modifier{uefiPXE}, dhcpv4.MessageTypeNone, "", ""},
		{"relayed", here, 67, []dhcpv4.Modifier{uefiPXE, dhcpv4.WithGatewayIP(net.IPv4(192, 0, 2, 1))}, dhcpv4.MessageTypeNone, "", "relay"},
		{"release", here, 67, []dhcpv4.Modifier{uefiPXE, dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease)}, dhcpv4.MessageTypeNone, "", ""},
		{"the firmware", here, 67, []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier(layout.VendorClass))}, dhcpv4.MessageTypeOffer, "192.0.2.12", "where its configuration is"},
	} {
		m := message(t, tt.mods...)
		r, note := answer(m, tt.port, tt.at)
		if !strings.Contains(note, tt.note) || (tt.note == "" && note != "") || strings.Contains(note, "WORD") {
			t.Errorf("%s: note %q, want %q", tt.name, note, tt.note)
		}
		if r == nil {
			if tt.want != dhcpv4.MessageTypeNone {
				t.Errorf("%s: no answer", tt.name)
			}
			continue
		}
		if r.MessageType() != tt.want || r.YourIPAddr.String() != tt.addr || r.TransactionID != m.TransactionID || r.ServerIdentifier().String() != "192.0.2.11" {
			t.Errorf("%s: %s", tt.name, r.Summary())
		}
		if mask, _ := r.SubnetMask().Size(); tt.addr == "192.0.2.12" && mask != 25 {
			t.Errorf("%s: a network of %d bits", tt.name, mask)
		}
		if lease := r.IPAddressLeaseTime(0); (lease > 0) != (tt.addr == "192.0.2.12") {
			t.Errorf("%s: a lease of %v", tt.name, lease)
		}
	}
}

// Boot ROMs find the file in the header and in option 67, with a zero byte behind
// its name; others get the name alone. Each finds there whom to ask, and that it need
// not look for more servers.
func TestBootFile(t *testing.T) {
	for _, tt := range []struct {
		class        string
		arch         iana.Arch
		user         string
		file, option string
		vendor       []byte
	}{
		{"PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC, "", "undionly.kpxe", "undionly.kpxe\x00", []byte{6, 1, 8, 255}},
		{"PXEClient:Arch:00007:UNDI:003016", iana.EFI_X86_64, "", "fw.efi", "fw.efi\x00", []byte{6, 1, 8, 255}},
		{"PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC, "iPXE", here.Base + "boot.ipxe", here.Base + "boot.ipxe", []byte{6, 1, 8, 255}},
		{"HTTPClient:Arch:00016:UNDI:003001", iana.EFI_X86_64_HTTP, "", here.Base + "fw.efi", here.Base + "fw.efi", nil},
		{layout.VendorClass, iana.EFI_X86_64, "", here.Base, here.Base, nil},
	} {
		guid := append([]byte{0}, "0123456789abcdef"...)
		mods := []dhcpv4.Modifier{class(tt.class, tt.arch), dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, guid)}
		if tt.user != "" {
			mods = append(mods, dhcpv4.WithGeneric(optUserClass, []byte(tt.user)))
		}
		r, _ := answer(message(t, mods...), 67, here)
		r, err := dhcpv4.FromBytes(r.ToBytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.Options.Get(dhcpv4.OptionBootfileName)); r.BootFileName != tt.file || got != tt.option {
			t.Errorf("%s: %q, and %q in the option; want %q and %q", tt.class, r.BootFileName, got, tt.file, tt.option)
		}
		wantClass, _, _ := strings.Cut(tt.class, ":")
		if got := r.Options.Get(dhcpv4.OptionVendorSpecificInformation); !bytes.Equal(got, tt.vendor) || r.ClassIdentifier() != wantClass {
			t.Errorf("%s: %v of the class %q, want %v of %q", tt.class, got, r.ClassIdentifier(), tt.vendor, wantClass)
		}
		if r.ServerIPAddr.String() != "192.0.2.11" || !bytes.Equal(r.Options.Get(dhcpv4.OptionClientMachineIdentifier), guid) {
			t.Errorf("%s: %v", tt.class, r.Summary())
		}
	}
}

func TestLocate(t *testing.T) {
	links := []link{{"eth0", netip.MustParsePrefix("192.0.2.11/24")}, {"eth1", netip.MustParsePrefix("10.0.0.11/8")}, {"eth1", netip.MustParsePrefix("10.1.1.1/32")}}
	conf := func(ps ...string) (out []status.NetbootAddress) {
		for _, p := range ps {
			out = append(out, status.NetbootAddress{Interface: "e", Prefix: netip.MustParsePrefix(p)})
		}
		return out
	}
	for _, tt := range []struct {
		want       model.NetbootBox
		configured []status.NetbootAddress
		name, addr string
		err        string
	}{
		{model.NetbootBox{}, conf("2001:db8::1/64", "192.0.2.12/24"), "eth0", "192.0.2.12", ""},
		{model.NetbootBox{Interface: "eth1"}, conf("192.0.2.12/24", "10.9.9.9/8"), "eth1", "10.9.9.9", ""},
		{model.NetbootBox{Addr: netip.MustParseAddr("10.0.0.77")}, conf("192.0.2.12/24"), "eth1", "10.0.0.77", ""},
		{model.NetbootBox{Addr: netip.MustParseAddr("10.0.0.11")}, nil, "", "", "10.0.0.11 is in no network"}, // our own
		{model.NetbootBox{Interface: "eth1"}, conf("192.0.2.12/24"), "eth1", "invalid IP", ""},                // another server gives one
		{model.NetbootBox{Interface: "eth1", DHCP: model.DHCPServer}, conf("192.0.2.12/24"), "", "", "no address in a network of eth1"},
		{model.NetbootBox{Name: "lb2"}, conf("172.16.0.1/12"), "", "", "gives lb2 no address in a network of any interface"},
		{model.NetbootBox{Interface: "eth7"}, nil, "", "", "interface eth7 of this box has no IPv4 network"},
	} {
		name, network, addr, err := locate(tt.want, tt.configured, links)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v: %v, want %q", tt.want, err, tt.err)
			}
			continue
		}
		if err != nil || name != tt.name || addr.String() != tt.addr || !network.IsValid() {
			t.Errorf("%+v: %s %s %s %v", tt.want, name, network, addr, err)
		}
	}
}

func TestNeighbour(t *testing.T) {
	const table = `IP address       HW type     Flags       HW address            Mask     Device
192.0.2.12       0x1         0x2         02:00:00:00:00:0C     *        eth0
192.0.2.13       0x1         0x0         00:00:00:00:00:00     *        eth0
`
	for _, tt := range []struct{ dev, addr, want string }{
		{"eth0", "192.0.2.12", "02:00:00:00:00:0c"}, {"eth1", "192.0.2.12", ""}, {"eth0", "192.0.2.13", ""}, {"eth0", "192.0.2.1", ""},
	} {
		if got := neighbour([]byte(table), tt.dev, netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s on %s: %q, want %q", tt.addr, tt.dev, got, tt.want)
		}
	}
}

// Whatever comes in, an answer is one to that request, and gives no address but
// the one that is meant.
func FuzzAnswer(f *testing.F) {
	for _, c := range []string{"PXEClient:Arch:00007", "HTTPClient:Arch:00016", layout.VendorClass} {
		f.Add(message(f, class(c, iana.EFI_BC)).ToBytes(), false)
		f.Add(message(f, class(c, iana.EFI_BC), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)).ToBytes(), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, proxy bool) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		at := here
		at.Proxy = proxy
		port := dhcpv4.ServerPort
		if proxy {
			port = proxyPort
		}
		otherServer(m, at.Server.Addr())
		r, _ := answer(m, port, at)
		if r == nil {
			return
		}
		if to := destination(m, netip.MustParseAddrPort("192.0.2.12:68"), port); !to.Addr().Is4() {
			t.Errorf("an answer goes to %s", to)
		}
		back, err := dhcpv4.FromBytes(r.ToBytes())
		if err != nil || back.OpCode != dhcpv4.OpcodeBootReply || back.TransactionID != m.TransactionID {
			t.Errorf("%v: %v", err, back)
		}
		if a := r.YourIPAddr.String(); a != "0.0.0.0" && (proxy || a != here.Addr.String()) {
			t.Errorf("an answer gives %s", a)
		}
	})
}
