package conf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// allowances are the boxes whose configuration netboot may have because an
// administrator said so, beside those of the netboot block. They are gone when
// conf starts anew: then he says it again.
type allowances struct {
	mu    sync.Mutex
	until map[string]time.Time // by the first part of the name
}

// Bounds of what an administrator allows.
const (
	maxAllowed      = 24 * time.Hour
	maxAllowedBoxes = 64
)

func (a *allowances) add(name string, until time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, t := range a.until {
		if !time.Now().Before(t) {
			delete(a.until, n)
		}
	}
	if _, known := a.until[name]; !known && len(a.until) == maxAllowedBoxes {
		return fmt.Errorf("%d boxes are being served: \"netboot stop NAME\" ends one", maxAllowedBoxes)
	}
	if a.until == nil {
		a.until = map[string]time.Time{}
	}
	a.until[name] = until
	return nil
}

func (a *allowances) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.until[name])
}

func (c *conf) netbootAllow(_ context.Context, r status.NetbootAllow) (any, error) {
	if r.For < 0 || r.For > maxAllowed {
		return nil, fmt.Errorf("netboot for %v: want at most %v", r.For, maxAllowed)
	}
	if r.For > 0 {
		if _, err := c.asBox(r.Name); err != nil {
			return nil, err
		}
	}
	return nil, c.netboot.add(shortName(r.Name), time.Now().Add(r.For))
}

// asBox is what runs here as another box reads it.
func (c *conf) asBox(name string) (model.Config, error) {
	short := shortName(name)
	switch {
	case short == "":
		return model.Config{}, errors.New("netboot: the name of the box is missing")
	case short == shortName(c.Host()):
		return model.Config{}, fmt.Errorf("netboot: %s is this box: name the one that boots", name)
	}
	now := c.current()
	cfg, problems := c.loadAs(name, generationName(now.state.Generation), now.state.Text, now.files, nil)
	if errorsIn(problems) > 0 {
		return cfg, fmt.Errorf("what runs here has errors as %s would read it:%s", name, list(problems))
	}
	if shortName(cfg.System.HostName) != short {
		return cfg, fmt.Errorf("what runs here has no host_name for %s: write \"@%s host_name %s\" in its system block", name, short, name)
	}
	return cfg, nil
}

// netbootSeed gives netboot the configuration of a box that it may serve.
func (c *conf) netbootSeed(_ context.Context, r status.NetbootQuery) (any, error) {
	short := shortName(r.Name)
	now := c.current()
	configured := slices.ContainsFunc(now.state.Config.Netboot, func(b model.NetbootBox) bool { return shortName(b.Name) == short })
	if !configured && !c.netboot.has(short) {
		return nil, fmt.Errorf("netboot of %s is neither in the configuration nor asked for by an administrator: give \"netboot serve\" again", r.Name)
	}
	cfg, err := c.asBox(r.Name)
	if err != nil {
		return nil, err
	}
	out := status.NetbootContent{Server: shortName(c.Host()), Generation: now.state.Generation}
	for _, i := range cfg.Interfaces {
		for _, p := range i.Addresses {
			out.Addresses = append(out.Addresses, status.NetbootAddress{Interface: i.Name, Prefix: p})
		}
	}
	for _, a := range cfg.StaticAddrs {
		out.Addresses = append(out.Addresses, status.NetbootAddress{Interface: a.Interface, Prefix: a.Prefix})
	}
	if !r.Whole {
		return out, nil
	}
	out.Text = now.state.Text
	for _, ref := range now.files {
		b, err := c.store.Content(ref)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", ref.Path, err)
		}
		out.Files = append(out.Files, status.File{Path: ref.Path, Mode: ref.Mode, Size: ref.Size, Content: b})
	}
	c.env.Log.Info(fmt.Sprintf("netboot got generation %d for %s", now.state.Generation, r.Name))
	return out, nil
}
