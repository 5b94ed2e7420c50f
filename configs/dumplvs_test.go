package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"ballast/test/guest"
)

// lvsExceptions are the differences that are meant.
var lvsExceptions = []exception{
	{"ftp-mark.conf", "CHECK *", "Retries", "nb_get_retry is read as retry in every check; keepalived ignores it"},
	{"06-nb-get-retry.conf", "CHECK *", "Retries", "the same"},
	{"07-lb-kind-in-real-server.conf", "VS 192.0.2.80 80 RS 192.0.2.21 80", "forwarding method", "lb_kind in a real_server is read as lvs_method; keepalived ignores it"},
	{"08-check-without-braces.conf", "*", "*", "a check without braces swallows the next real server in keepalived"},
	{"30-groups-and-marks.conf", "VS [G]:0", "quorum", "keepalived lowers a quorum that the weights cannot reach; here health does, at work"},
	{"41-generated-udp.conf", "CHECK *", "", "keepalived drops a check whose program is not on the machine"},
	{"lvs-whole.conf", "CHECK *", "Log all failures", "checker_log_all_failures is not part of the check in keepalived's dump"},
	{"lvs-whole.conf", "CHECK *", "Payload specified", "keepalived refuses the payload 0102ff"},
	{"lvs-whole.conf", "CHECK *", "Timeout", "a host block without connect_timeout has 0 in keepalived, and that of the block around it here"},
}

// TestKeepalivedAgreesLVS is TestKeepalivedAgreesVRRP for virtual servers. As
// keepalived ends at once without IPVS, it runs in a virtual machine: one for
// all files.
func TestKeepalivedAgreesLVS(t *testing.T) {
	if !guest.Inside() {
		if _, err := exec.LookPath("keepalived"); err != nil {
			t.Skip("keepalived is not installed")
		}
		guest.Run(t, guest.Options{
			Package: "./configs", Args: []string{"-test.run", "^TestKeepalivedAgreesLVS$", "-test.v"},
			// Without the programs and the users it leaves scripts out.
			Binaries: []string{"keepalived", "true"}, Files: []string{"/etc/passwd", "/etc/group"},
			Modules: []string{"ip_vs"}, Memory: 1024,
		})
		return
	}
	used := make([]atomic.Int32, len(lvsExceptions))
	compared := 0
	for _, f := range oracleFiles(t) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			c, problems := Load(f, text, Options{ConfigID: "main"})
			if len(c.VirtualServers) == 0 {
				t.SkipNow() // nothing of LVS in it
			}
			// There is no other network namespace in the virtual machine.
			asked := strings.Replace(string(text), "net_namespace_ipvs elsewhere\n", "\n", 1)
			a := ask(t, order{Text: asked, Links: linksOf(c), Args: []string{"-C"}})
			dump := a.Files["keepalived_check.data"]
			if a.Exit != 0 || dump == "" {
				if errorsOf(problems) == 0 {
					t.Errorf("keepalived ends with %d and we have no error: %s", a.Exit, a.Log)
				}
				return
			}
			compared++
			compare(t, filepath.Base(f), ourLVS(c), readCheckDump(dump), lvsExceptions, used)
			if t.Failed() {
				t.Log(a.Log)
			}
		})
	}
	if compared < 14 {
		t.Errorf("%d files were compared", compared)
	}
	for i := range used {
		if used[i].Load() == 0 && !t.Failed() {
			t.Errorf("no difference is like %+v any more: delete the line", lvsExceptions[i])
		}
	}
}
