package conf

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"ballast/configs"
	"ballast/configs/check"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// kernelNICs lists the network interfaces that have a device behind them.
// This folder of links is all of /sys that conf may read: what they lead to is
// asked for and never opened.
func kernelNICs() []string {
	const class = "/sys/class/net"
	list, _ := os.ReadDir(class) // none, or those up to the error
	var names []string
	for _, e := range list {
		if _, err := os.Stat(filepath.Join(class, e.Name(), "device")); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// factoryText is the configuration of a box that has none.
func factoryText(nics []string) string {
	var b strings.Builder
	b.WriteString("! Factory default: DHCP on every network interface.\n")
	for _, n := range nics {
		b.WriteString("interface " + n + " {\n    dhcp\n}\n")
	}
	return b.String()
}

// followNICs renews the factory default when a NIC comes late, as long as the
// factory default is what runs.
func (c *conf) followNICs(ctx context.Context) {
	if c.current().state.Source != "factory" {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ipc.Watch(ctx, c.client("net"), func(uint64, status.Net) {
		if !c.renewFactory(ctx) {
			cancel()
		}
	})
}

// renewFactory reports whether the factory default still runs.
func (c *conf) renewFactory(ctx context.Context) bool {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-c.turn }()
	now := c.current()
	if now.state.Source != "factory" {
		return false
	}
	text := factoryText(c.NICs())
	if text == now.state.Text {
		return true
	}
	cfg, _ := c.load("factory", text, nil, nil)
	n, err := c.store.Reserve()
	if err != nil {
		c.env.Log.Error("configuration store: " + err.Error())
	}
	now.state.Generation, now.state.Text, now.state.Config, now.draft = n, text, cfg, ""
	c.publish(now)
	c.env.Log.Info("network interfaces changed: factory default renewed")
	return true
}

// load reads a text that can include the given files. The host name that a
// configuration gives itself is what its "@name" lines refer to, so it is read
// twice when that differs from what the box is called so far.
func (c *conf) load(name, text string, files []store.FileRef, f *check.Facts) (cfg model.Config, problems []model.Problem) {
	return c.loadAs(c.Host(), name, text, files, f)
}

// loadAs is load for a box that is called id so far.
func (c *conf) loadAs(id, name, text string, files []store.FileRef, f *check.Facts) (cfg model.Config, problems []model.Problem) {
	opts := configs.Options{ConfigID: shortName(id), Facts: f, Open: included{files, c.store.Content}.open}
	cfg, problems = c.Language.Load(name, text, opts)
	if own := shortName(cfg.System.HostName); own != "" && own != opts.ConfigID {
		opts.ConfigID = own
		cfg, problems = c.Language.Load(name, text, opts)
	}
	return cfg, problems
}

func hostName() string {
	h, err := os.Hostname()
	if err != nil {
		return ""
	}
	return h
}

func shortName(h string) string {
	short, _, _ := strings.Cut(h, ".")
	return short
}
