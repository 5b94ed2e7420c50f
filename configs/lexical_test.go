package configs

import (
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"
)

// lexical uses every feature of the language's lines: what it comes to in keepalived
// shows in the instances that it makes.
const lexical = `! a comment
$NET=192.0.2
$IF=eth0
@main $WHO=this
@^main $WHO=other
@main $PRIO=120
@other $PRIO=20
$LATE=${EARLY}0
$EARLY=7
$AUTH= \
    authentication { \
        auth_type PASS \
        auth_pass "se#cr!et" \
    }
$BODY= \
    interface $IF \
    @main advert_int 2 \
    @other advert_int 3 \
    $AUTH
include defs/*.conf
vrrp_instance ${WHO}_a { state BACKUP # on the line of the block
    interface $IF
    virtual_router_id 1#no blank before the comment
@main priority ${PRIO}
@^main priority 1
    virtual_ipaddress { ${NET}.1 } }
vrrp_instance "two words"
{
    $BODY
    virtual_router_id ${LATE}
    $EARLY=8
    priority ${LATE}
    virtual_ipaddress
    {
        ~SEQ(N, 10, 12) ${NET}.${N}
        ~SEQ(N, 26, -2, 22) ${NET}.${N}
        ~SEQ(N, 2) ${NET}.4${N}
        ~SEQ(A, 1, 2) ~SEQ(B, 1, 2) 10.${A}.${B}.1
        ~LST(N, 51, 53) ${NET}.$N
        ~LST({A,B}, {61,62}, {71, 72}) 10.9.${A}.${B}
    }
    virtual_ipaddress_excluded {
        ~SEQx(N, 9, 11) 2001:db8::${N}
    }
} vrrp_instance three {
    include parts/{one,two}
    virtual_router_id 3
    include parts/body-[12]*
}
include open
    virtual_router_id 4
include close
`

var lexicalFiles = map[string]string{
	"defs/a.conf":       "$FROM_FILE=5\n",
	"defs/b.conf":       "vrrp_instance b {\n    interface eth0\n    virtual_router_id 1${FROM_FILE}\n    virtual_ipaddress {\n        192.0.2.15\n    }\n}\n",
	"defs/c.txt":        "not read\n",
	"parts/one":         "    interface eth0\n",
	"parts/two":         "    priority 33\n",
	"parts/body-1":      "    virtual_ipaddress {\n        192.0.2.33\n",
	"parts/body-2.conf": "        192.0.2.34\n    }\n",
	"parts/body-3":      "not read\n",
	"open":              "vrrp_instance four {\n    interface eth0\n    virtual_ipaddress {\n        192.0.2.44\n    }\n",
	"close":             "}\n",
}

// TestKeepalivedAgreesLexical: keepalived makes of conditions, parameters,
// sequences, includes, quotes, comments and braces what we make of them.
func TestKeepalivedAgreesLexical(t *testing.T) {
	files := fstest.MapFS{}
	for name, text := range lexicalFiles {
		files["run/"+name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	c, problems := Load(oracleConf, []byte(lexical), Options{ConfigID: "main", Open: func(p string) (fs.File, error) { return files.Open(strings.TrimPrefix(p, "/")) }})
	if len(problems) > 0 {
		t.Errorf("%v", problems)
	}
	if len(c.Instances) != 5 {
		t.Fatalf("%d instances", len(c.Instances))
	}
	if testing.Short() {
		t.Skip("it starts keepalived")
	}
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("keepalived is not installed")
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces need root")
	}
	a := ask(t, order{Text: lexical, Files: lexicalFiles, Links: linksOf(c), Args: []string{"-P"}})
	if a.Exit != 0 {
		t.Fatalf("keepalived ends with %d: %s", a.Exit, a.Log)
	}
	theirs := readDump(a.Files["keepalived.data"], []string{"VRRP Instance"})
	settle(theirs)
	compare(t, "lexical", ourVRRP(c), theirs, nil, nil)
}
