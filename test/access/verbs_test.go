package access

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ballast/services/ipc"

	"github.com/google/go-cmp/cmp"
)

// matrix is the lowest role that a user of the console needs for a verb; None:
// no user may call it, only another service.
var matrix = map[string]ipc.Role{
	"conf check":                ipc.Admin, // its answer holds secrets
	"conf commit":               ipc.Admin,
	"conf compare":              ipc.View, // without secrets
	"conf confirm":              ipc.Admin,
	"conf file-delete":          ipc.Admin,
	"conf file-get":             ipc.Admin, // scripts may hold secrets
	"conf file-list":            ipc.View,
	"conf file-put":             ipc.Admin,
	"conf history":              ipc.View,
	"conf netboot-may":          ipc.Admin,
	"conf netboot-seed":         ipc.None, // the whole text, for the one service that hands it on
	"conf pair":                 ipc.None,
	"conf peer-drift":           ipc.View, // without secrets
	"conf peer-pull":            ipc.Admin,
	"conf peer-push":            ipc.Admin,
	"conf peer-state":           ipc.View,
	"conf rollback":             ipc.Admin,
	"conf text":                 ipc.View, // without secrets below Admin
	"console kick":              ipc.Admin,
	"firmware confirm":          ipc.Admin,
	"firmware install":          ipc.Admin,
	"firmware pair":             ipc.None,
	"firmware upgrade-pair":     ipc.Admin,
	"firmware upgrade-pair-ask": ipc.Admin,
	"firmware rollback":         ipc.Admin,
	"firmware upgrade":          ipc.Admin,
	"health prepare":            ipc.None,
	"health server":             ipc.View,
	"init disk-give":            ipc.None,
	"init disk-take":            ipc.None,
	"init disks":                ipc.Admin,
	"init log":                  ipc.View,
	"init poweroff":             ipc.Admin,
	"init reboot":               ipc.Admin,
	"init restart":              ipc.Operate,
	"init stick":                ipc.None,
	"ipvs connections":          ipc.View,
	"ipvs order":                ipc.Operate,
	"ipvs orders":               ipc.View,
	"ipvs page":                 ipc.View,
	"ipvs prepare":              ipc.None,
	"ipvs service":              ipc.View,
	"net prepare":               ipc.None,
	"net renew":                 ipc.Operate,
	"netboot forget":            ipc.Admin,
	"netboot serve":             ipc.Admin,
	"netboot stop":              ipc.Admin,
	"notify audit":              ipc.View, // what users of every role do is kept
	"notify audit-log":          ipc.View,
	"notify journal":            ipc.View,
	"notify mail":               ipc.Operate,
	"notify note":               ipc.None,
	"notify prepare":            ipc.None,
	"notify run":                ipc.None,
	"notify track-file":         ipc.Operate,
	"peer send":                 ipc.None,
	"script keepalived":         ipc.None,
	"script mail":               ipc.None,
	"script resign":             ipc.None,
	"script resume":             ipc.None,
	"snmp prepare":              ipc.None,
	"vrrp prepare":              ipc.None,
	"vrrp resign":               ipc.Operate,
	"vrrp resume":               ipc.Operate,
	"capture capture":           ipc.Admin, // packets hold passwords
	"ipvs support":              ipc.Admin,
	"net support":               ipc.Admin,

	"conf spare":         ipc.None,
	"init crash":         ipc.View, // the kernel's log is for everybody too
	"init factory-reset": ipc.Admin,
}

// groups are the words of package ipc by which a verb names its callers.
var groups = map[string]uint32{
	"GroupView": ipc.GroupView, "GroupOperate": ipc.GroupOperate, "GroupAdmin": ipc.GroupAdmin, "AnyUID": ipc.AnyUID, "UIDRoot": ipc.UIDRoot,
	"UIDConf": ipc.UIDConf, "UIDNet": ipc.UIDNet, "UIDVRRP": ipc.UIDVRRP, "UIDIPVS": ipc.UIDIPVS, "UIDHealth": ipc.UIDHealth,
	"UIDConsole": ipc.UIDConsole, "UIDNotify": ipc.UIDNotify, "UIDSNMP": ipc.UIDSNMP, "UIDPacer": ipc.UIDPacer, "UIDPeer": ipc.UIDPeer,
	"UIDFirmware": ipc.UIDFirmware, "UIDNetboot": ipc.UIDNetboot, "UIDCapture": ipc.UIDCapture, "UIDScript": ipc.UIDScript,
}

// declared reads from the source whom each verb of each service names:
// "service verb" to ids.
func declared(t *testing.T) map[string][]uint32 {
	t.Helper()
	out := map[string][]uint32{}
	root := filepath.Join("..", "..")
	for _, room := range []string{"services", "init", "console"} {
		err := filepath.WalkDir(filepath.Join(root, room), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			service := filepath.Base(filepath.Dir(path))
			if service == "notify" && filepath.Base(path) == "script.go" {
				service = "script"
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if verb, ids, ok := handled(t, path, call); ok {
						name := service + " " + verb
						if _, twice := out[name]; twice {
							t.Errorf("%s: %s is handled twice", path, name)
						}
						out[name] = ids
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// handled reads one call of ipc.Server.Handle, or of conf's helpers around it.
func handled(t *testing.T, path string, call *ast.CallExpr) (verb string, ids []uint32, ok bool) {
	var name string
	switch fn := call.Fun.(type) {
	case *ast.SelectorExpr:
		name = fn.Sel.Name
	case *ast.Ident:
		name = fn.Name
	}
	args := call.Args
	switch {
	case (name == "Handle" || name == "HandleStream") && len(args) >= 2: // verb, function, ids …
		args = slices.Concat(args[:1], args[2:])
	case name == "handle" && len(args) == 3: // conf, verb, function
		args, ids = args[1:2], []uint32{ipc.GroupAdmin}
	case name == "handleFor" && len(args) == 4: // conf, group, verb, function
		args = []ast.Expr{args[2], args[1]}
	default:
		return "", nil, false
	}
	lit, is := args[0].(*ast.BasicLit)
	if !is {
		return "", nil, false // the helper itself, or another Handle
	}
	verb, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range args[1:] {
		sel, is := a.(*ast.SelectorExpr)
		if !is {
			t.Errorf("%s: %s: who may call it is not written as a word of package ipc", path, verb)
			continue
		}
		id, known := groups[sel.Sel.Name]
		if !known {
			t.Errorf("%s: %s: ipc.%s is not known to this test", path, verb, sel.Sel.Name)
		}
		ids = append(ids, id)
	}
	return verb, ids, true
}

// lowest is the role that ids ask of the console.
func lowest(ids []uint32) ipc.Role {
	least := ipc.None
	for _, id := range ids {
		r := map[uint32]ipc.Role{ipc.GroupView: ipc.View, ipc.AnyUID: ipc.View, ipc.GroupOperate: ipc.Operate, ipc.GroupAdmin: ipc.Admin, ipc.UIDConsole: ipc.Admin}[id]
		if r != ipc.None && (least == ipc.None || r < least) {
			least = r
		}
	}
	return least
}

// TestEveryVerbHasItsRole holds the services to the matrix: a verb that is new,
// or that names another role, must be written down here.
func TestEveryVerbHasItsRole(t *testing.T) {
	got := map[string]ipc.Role{}
	for name, ids := range declared(t) {
		got[name] = lowest(ids)
	}
	if diff := cmp.Diff(matrix, got); diff != "" {
		t.Errorf("want -, have +:\n%s", diff)
	}
}
