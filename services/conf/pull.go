package conf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"ballast/configs/store"
	"ballast/services/conf/pair"
	"ballast/services/ipc/status"
)

// push makes what runs here run on both boxes.
func (c *conf) push(ctx context.Context, r status.PairChange) (any, error) {
	now := c.current()
	if now.state.Config.Pair == nil {
		return nil, errors.New("no peer is configured: add a peer block and commit it")
	}
	k := checked{text: now.state.Text, files: now.files}
	k.config, k.problems = c.load(generationName(now.state.Generation), k.text, k.files, c.facts(ctx, k.files))
	return c.changeAll(ctx, k, store.Meta{Source: "push", Author: r.Author}, how{force: r.Force}, false)
}

// pull makes what runs on the other box run here.
func (c *conf) pull(ctx context.Context, r status.PairChange) (any, error) {
	t := c.configured()
	if r.From.Addr.IsValid() {
		t = r.From
	}
	if !t.Addr.IsValid() {
		return nil, errors.New("no peer is configured: name it with from ADDRESS key \"ssh-ed25519 AAAA…\"")
	}
	a, err := c.tellTo(ctx, t, pair.Message{Kind: pair.Fetch}, prepareBound)
	if err != nil {
		return nil, fmt.Errorf("pull: the peer %w", err)
	}
	if len(a.Payload) > store.MaxText || !utf8.Valid(a.Payload) {
		return nil, errors.New("pull: the peer sent something that is no configuration")
	}
	for _, f := range a.Files {
		if err := validPath(f.Path); err != nil {
			return nil, fmt.Errorf("pull: %w", err)
		}
		if _, err := c.store.Content(f); err == nil {
			continue
		}
		b, err := c.tellTo(ctx, t, pair.Message{Kind: pair.Content, Sum: f.Sum}, prepareBound)
		if err != nil {
			return nil, fmt.Errorf("pull: file %s: the peer %w", f.Path, err)
		}
		ref, err := c.store.AddBlob(f.Path, f.Mode, b.Payload)
		if err == nil && ref != f {
			err = errors.New("it is not what it is said to be")
		}
		if err != nil {
			return nil, fmt.Errorf("pull: file %s: %w", f.Path, err)
		}
	}
	host := c.Host()
	if r.As != "" {
		host = r.As
	}
	k := checked{text: string(a.Payload), files: a.Files}
	k.config, k.problems = c.loadAs(host, "configuration of "+a.State.Box, k.text, k.files, c.facts(ctx, k.files))
	if errorsIn(k.problems) == 0 {
		if r.As != "" && shortName(k.config.System.HostName) != shortName(r.As) {
			return nil, fmt.Errorf("not committed: the configuration has no host_name for %s: write \"@%s host_name %s\" in its system block", r.As, shortName(r.As), r.As)
		}
		if err := c.fits(k.config, a.State.Box, a.Own); err != nil {
			return nil, fmt.Errorf("not committed: %w", err)
		}
	}
	m := store.Meta{Source: "pull", Author: r.Author, Comment: fmt.Sprintf("generation %d of %s, %s by %s", a.State.Generation, a.State.Box, a.State.Source, author(a.State.Author))}
	res, err := c.changeAll(ctx, k, m, how{force: r.Force}, true)
	if err != nil {
		return nil, err
	}
	return res, nil
}

// drift tells in what the two running configurations differ.
func (c *conf) drift(ctx context.Context) (any, error) {
	c.hello(ctx, false)
	d := status.Drift{State: c.pairState()}
	if !d.State.Drift || !d.State.Reachable {
		return d, nil
	}
	a, err := c.tell(ctx, pair.Message{Kind: pair.Fetch}, prepareBound)
	if err != nil {
		return nil, fmt.Errorf("the peer %w", err)
	}
	now := c.current()
	d.Diff = c.Language.Diff(strings.ToValidUTF8(string(a.Payload), "?"), now.state.Text)
	theirs := map[string]store.FileRef{}
	for _, f := range a.Files {
		theirs[f.Path] = f
	}
	for _, f := range now.files {
		t, ok := theirs[f.Path]
		delete(theirs, f.Path)
		switch {
		case !ok:
			d.Files = append(d.Files, f.Path+": only on "+d.State.Own.Box)
		case t != f:
			d.Files = append(d.Files, f.Path+": differs")
		}
	}
	for p := range theirs {
		d.Files = append(d.Files, p+": only on "+peerName(d.State))
	}
	slices.Sort(d.Files)
	return d, nil
}
