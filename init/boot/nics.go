package boot

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/board"
)

// nic is an interface of a device.
type nic struct {
	name   string
	index  int
	device string // its path in /sys/devices
}

// rename is one step.
type rename struct {
	index    int
	from, to string
}

// NICs gives interfaces the names that the board has for their places, and says
// which got another one. What can be renamed is, whatever else fails.
func NICs(rules []board.NIC) (string, error) {
	if len(rules) == 0 {
		return "", nil
	}
	have, taken, err := readNICs("/sys/class/net")
	if err != nil {
		return "", err
	}
	steps, missing := plan(have, taken, rules)
	var done []string
	var errs []error
	for _, r := range steps {
		if err := renameLink(r); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, r.from+" -> "+r.to)
	}
	what := strings.Join(done, ", ")
	if what == "" {
		what = "their names are the board's"
	}
	if len(missing) > 0 {
		what += "; not there: " + strings.Join(missing, ", ")
	}
	return what, errors.Join(errs...)
}

// readNICs reads the interfaces that belong to a device, by their place, and the
// names of the others.
func readNICs(dir string) (have []nic, others []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("NICs: %w", err)
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		device, err := filepath.EvalSymlinks(filepath.Join(p, "device"))
		index := 0
		if b, rerr := os.ReadFile(filepath.Join(p, "ifindex")); rerr == nil {
			fmt.Sscan(string(b), &index)
		}
		if err != nil || index == 0 {
			others = append(others, e.Name()) // lo, a tunnel; or it has just gone
			continue
		}
		have = append(have, nic{e.Name(), index, device})
	}
	slices.SortFunc(have, func(a, b nic) int { return strings.Compare(a.device+"\x00"+a.name, b.device+"\x00"+b.name) })
	return have, others, nil
}

// plan is what to rename, in an order in which no name is taken when its turn
// comes, and the names of the board for which there is no interface. An
// interface that no rule names keeps its name, or gets the next free one when a
// rule gives it to another.
func plan(have []nic, others []string, rules []board.NIC) (steps []rename, missing []string) {
	want := map[int]string{} // by index
	given := map[string]bool{}
	for _, r := range rules {
		// A name of the board is nobody else's, even when its port is dead: what is
		// configured for it must not reach another wire.
		given[r.Name] = true
		i := slices.IndexFunc(have, func(n nic) bool { return want[n.index] == "" && fits(r.Path, n.device) })
		if i < 0 {
			missing = append(missing, r.Name)
			continue
		}
		want[have[i].index] = r.Name
	}
	for _, n := range others {
		given[n] = true
	}
	for _, n := range have {
		if want[n.index] == "" && !given[n.name] {
			want[n.index], given[n.name] = n.name, true
		}
	}
	for _, n := range have {
		for i := 0; want[n.index] == ""; i++ {
			if free := fmt.Sprintf("eth%d", i); !given[free] {
				want[n.index], given[free] = free, true
			}
		}
	}
	// Names that go round in a circle meet a name of nobody's on the way.
	busy := map[string]bool{}
	for _, n := range have {
		busy[n.name] = true
	}
	now := slices.Clone(have)
	aside := 0
	for {
		moved, stuck := false, -1
		for i, n := range now {
			to := want[n.index]
			switch {
			case n.name == to:
			case !busy[to]:
				steps = append(steps, rename{n.index, n.name, to})
				delete(busy, n.name)
				busy[to], now[i].name, moved = true, to, true
			case stuck < 0:
				stuck = i
			}
		}
		if moved {
			continue
		}
		if stuck < 0 {
			return steps, missing
		}
		for busy[fmt.Sprintf("aside%d", aside)] || given[fmt.Sprintf("aside%d", aside)] {
			aside++
		}
		to := fmt.Sprintf("aside%d", aside)
		steps = append(steps, rename{now[stuck].index, now[stuck].name, to})
		delete(busy, now[stuck].name)
		busy[to], now[stuck].name = true, to
	}
}

// fits reports whether a device's path ends with what the pattern says.
func fits(pattern, device string) bool {
	want := strings.Split(pattern, "/")
	have := strings.Split(strings.Trim(device, "/"), "/")
	if len(have) < len(want) {
		return false
	}
	for i, h := range have[len(have)-len(want):] {
		if ok, err := path.Match(want[i], h); !ok || err != nil {
			return false
		}
	}
	return true
}

// renameLink does one step. An interface that is up already is renamed as well.
func renameLink(r rename) error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("NICs: %w", err)
	}
	defer c.Close()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.IFLA_IFNAME, Data: append([]byte(r.to), 0)}})
	if err != nil {
		return fmt.Errorf("NICs: %w", err)
	}
	// struct ifinfomsg: family, padding, type, index, flags, change.
	msg := make([]byte, unix.SizeofIfInfomsg)
	for i := range 4 {
		msg[4+i] = byte(uint32(r.index) >> (8 * i)) // boards are little-endian
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWLINK, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(msg, attrs...),
	})
	if err != nil {
		return fmt.Errorf("NICs: rename %s to %s: %w", r.from, r.to, err)
	}
	return nil
}
