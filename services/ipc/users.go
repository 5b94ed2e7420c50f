package ipc

// User ids of the service processes. All of them are in group GroupBallast,
// which owns the sockets; files of the image name them in /etc/passwd.
const (
	UIDRoot     = 0
	UIDConf     = 101
	UIDNet      = 102
	UIDVRRP     = 103
	UIDIPVS     = 104
	UIDHealth   = 105
	UIDConsole  = 106
	UIDNotify   = 107
	UIDSNMP     = 108
	UIDPacer    = 109
	UIDPeer     = 110
	UIDFirmware = 111
	UIDNetboot  = 112
	UIDCapture  = 113
	UIDSeed     = 114 // no service: the process that fetches a configuration before they start
	UIDScript   = 200 // keepalived_script: what vrrp_script, notify and MISC_CHECK run as

	GroupBallast = 100
)

// Groups that carry the role of a user of the console in what it asks of a
// service (SO_PEERCRED): see TakeRoles. They own no file.
const (
	GroupView    = 121
	GroupOperate = 122
	GroupAdmin   = 123
)
