package console

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What docs/ansible.md tells, done by the real thing, where it is installed
// (make test-tools); the options that it gives to ssh are tested everywhere.
func TestAnsible(t *testing.T) {
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		t.Skip("ansible-core is not installed: make test-tools")
	}
	l := newLab(t).start()
	l.file("keepalived.conf", configuration)
	// The ssh of a test does not use the configuration of who runs it.
	config := l.file("ssh_config", "IdentityFile "+filepath.Join(l.dir, "key_admin")+"\nIdentitiesOnly yes\nStrictHostKeyChecking accept-new\nUserKnownHostsFile "+
		filepath.Join(l.dir, "known_hosts")+"\n")
	l.file("inventory", "lb1 ansible_host=127.0.0.1 ansible_port="+l.port+" ansible_user=admin ansible_ssh_common_args='-F "+config+"'\n")
	scp, err := exec.LookPath("scp")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(l.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "scp"), []byte("#!/bin/sh\nexec "+scp+" -F "+config+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	book := l.file("play.yml", playbook(t))
	play := func(more ...string) (string, error) {
		cmd := exec.Command("ansible-playbook", append([]string{"-i", filepath.Join(l.dir, "inventory"), book}, more...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1", "ANSIBLE_LOCAL_TEMP="+l.dir+"/tmp", "HOME="+l.dir, "ANSIBLE_HOME="+l.dir, "PATH="+bin+":"+os.Getenv("PATH"))
		cmd.Dir = l.dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := play()
	if err != nil || !strings.Contains(out, "ok=5") || !strings.Contains(out, "changed=1") {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(l.conf.commits()) != 1 || l.conf.commits()[0].Text != configuration || l.conf.commits()[0].Comment != "ansible" {
		t.Fatalf("conf got %+v\n%s", l.conf.commits(), out)
	}
	l.conf.change(func() { l.conf.refuse = "not committed, nothing changed:\n  net: no" })
	if out, err = play(); err == nil || !strings.Contains(out, "net: no") || strings.Contains(out, "topsecret") {
		t.Errorf("a refused commit: %v\n%s", err, out)
	}
}

// playbook is the one that the manual shows.
func playbook(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/ansible.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "```yaml\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("docs/ansible.md shows no playbook")
	}
	return text
}

// How Ansible's ssh plugin runs a command of the raw module, with a terminal and
// over one connection, and without one.
func TestCommandsAsAnsibleGivesThem(t *testing.T) {
	l := newLab(t).start()
	options := []string{"-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "ControlPath=" + filepath.Join(l.dir, "cp"), "-o", "KbdInteractiveAuthentication=no",
		"-o", "PasswordAuthentication=no", "-o", "ConnectTimeout=10"}
	run := func(more ...string) outcome { return l.run("", append(l.sshArgs("admin", options...), more...)...) }
	run("-tt", "admin@127.0.0.1", "show vrrp").want(t, 0, "VI_1      MASTER", "")
	run("-tt", "admin@127.0.0.1", "show vrrp VI_2").want(t, 1, "there is no instance", "")
	run("-tt", "admin@127.0.0.1", "configure; set vrrp_instance VI_1 priority 90; commit comment drain").want(t, 0, "committed: generation 8", "")
	run("-tt", "admin@127.0.0.1", "configure; set vrrp_instance VI_1 priority 900; commit").want(t, 1, "1…255", "")
	run("admin@127.0.0.1", `show log | match "backup -> master" | count`).want(t, 0, "1\n", "")
	exec.Command("ssh", append(l.sshArgs("admin", options...), "-O", "exit", "admin@127.0.0.1")...).Run()
}
