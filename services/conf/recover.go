package conf

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ballast/services/ipc/status"
)

// RecoverFile, in conf's data folder, is left there by init after the data disk
// was lost: this box runs what is known of it in a second place (its name, users,
// interfaces and peer), and its peer has all the rest.
const RecoverFile = "recover"

func (c *conf) recoverPath() string { return filepath.Join(c.env.Data, RecoverFile) }

// recovering reports whether the configuration is to come from the peer.
func (c *conf) recovering() bool {
	if c.env.Data == "" {
		return false
	}
	_, err := os.Stat(c.recoverPath())
	return err == nil
}

// recoverFromPeer fetches the configuration from the peer until that succeeds or
// somebody commits another one.
func (c *conf) recoverFromPeer(ctx context.Context) {
	if !c.recovering() {
		return
	}
	said := ""
	for wait := time.Duration(0); ; wait = c.Pair.Recover {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		done, err := c.recoverOnce(ctx)
		if done {
			if err := os.Remove(c.recoverPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				c.env.Log.Error("configuration of the peer: " + err.Error())
			}
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			c.env.Log.Warn("the data disk was lost; the configuration of the peer does not come yet: " + said)
		}
	}
}

// recoverOnce tries once; done: there is nothing to fetch any longer.
func (c *conf) recoverOnce(ctx context.Context) (done bool, err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-c.turn }()
	now := c.current().state
	switch {
	case now.Source != "seed" && now.Source != "last good" && now.Source != "factory":
		c.env.Log.Info("somebody made another configuration run: the one of the peer is not fetched")
		return true, nil
	case now.Config.Pair == nil:
		c.env.Log.Error("the data disk was lost, and no peer is known that has the configuration")
		return true, nil
	}
	// Services that are still starting take it when they have.
	if _, err := c.pull(ctx, status.PairChange{Author: "ballast", Force: true}); err != nil {
		return false, err
	}
	c.env.Log.Warn("the data disk was lost; the configuration came back from the peer")
	return true, nil
}

// spare is what of the running configuration is about this box and not about its
// work: init keeps it in a second place.
func (c *conf) spare(context.Context, struct{}) (any, error) {
	now := c.current().state
	return status.Spare{Generation: now.Generation, Text: c.Language.Merge(now.Text, ""), Peer: now.Config.Pair != nil}, nil
}
