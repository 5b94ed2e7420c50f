package ipvs

import (
	"context"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watchLinks calls stirred when an interface or an address changed, until ctx
// ends. What changed is of no interest: what waits for it is tried again.
func watchLinks(ctx context.Context, stirred func()) {
	for ctx.Err() == nil {
		c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
			Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
		})
		if err == nil {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			// An overrun of the buffer is news as well.
			for err = nil; err == nil; {
				if _, err = c.Receive(); ctx.Err() == nil {
					stirred()
				}
			}
			stop()
			c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // without it there is still the back-off
		}
	}
}
