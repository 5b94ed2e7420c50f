package sbom

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample() *Document {
	d := &Document{Name: "ballast-x-1.2", Tool: "mkimage-1.2", Created: time.Unix(1763750000, 0)}
	root := d.Add(Part{Kind: "firmware", Name: "ballast-x", Version: "1.2", Purpose: "FIRMWARE"}, "", "")
	bin := d.Add(Part{Kind: "binary", Name: "ballast", Version: "1.2", SHA256: strings.Repeat("0a", 32)}, root, Contains)
	bb := d.Add(Part{Kind: "binary", Name: "bb"}, root, Contains)
	sys := Part{Kind: "go", Name: "golang.org/x/sys", Version: "v0.1.0", License: "BSD-3-Clause", Notice: "Copyright 2009 The Go Authors.", PURL: "pkg:golang/golang.org/x/sys@v0.1.0"}
	d.Add(sys, bin, StaticLink)
	d.Add(sys, bb, StaticLink)
	d.Add(Part{Kind: "deb", Name: "grub+pc", Version: "1:2~3", Supplier: "Organization: Debian", PURL: "pkg:deb/debian/grub%2Bpc@1:2~3"}, root, Contains)
	d.Add(Part{Kind: "deb", Name: "grub-pc", Version: "1:2~3"}, root, Contains) // cleaned, the same as the one before
	return d
}

func TestDocument(t *testing.T) {
	b, err := sample().JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := sample().JSON()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("made twice it differs, %v", err)
	}
	other := sample()
	other.Name += "x"
	if o, err := other.JSON(); err != nil || bytes.Contains(o, b[bytes.Index(b, []byte("spdxdocs")):][:80]) {
		t.Errorf("another content has the same namespace, %v", err)
	}
	golden := filepath.Join("testdata", "sample.spdx.json")
	if os.Getenv("UPDATE") != "" {
		os.MkdirAll("testdata", 0o755)
		os.WriteFile(golden, b, 0o644)
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(want, b) {
		t.Errorf("differs from %s (UPDATE=1 writes it), %v:\n%s", golden, err, b)
	}
}

func TestCheck(t *testing.T) {
	good, err := sample().JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{"SPDX-2.3", "SPDX-2.2", "spdxVersion"},
		{"CC0-1.0", "MIT", "dataLicense"},
		{`"SPDXID": "SPDXRef-DOCUMENT"`, `"SPDXID": "SPDXRef-DOC"`, "of the document"},
		{`"name": "ballast-x-1.2"`, `"name": ""`, "no name"},
		{"https://spdx.org/spdxdocs/", "https://spdx.org/#", "documentNamespace"},
		{`18:33:20Z"`, `18:33:20+00:00"`, "created"},
		{"Tool: mkimage", "mkimage", "creator"},
		{`"SPDXID": "SPDXRef-binary-bb"`, `"SPDXID": "SPDXRef-binary-ballast-1.2"`, "there twice"},
		{`"SPDXID": "SPDXRef-binary-bb"`, `"SPDXID": "SPDXRef-binary_bb"`, `SPDXID "SPDXRef-binary_bb"`},
		{`"relatedSpdxElement": "SPDXRef-binary-bb"`, `"relatedSpdxElement": "SPDXRef-binary-cc"`, "no such element"},
		{`"relatedSpdxElement": "SPDXRef-binary-bb"`, `"relatedSpdxElement": "SPDXRef-binary-ballast-1.2"`, "belongs to nothing"},
		{"STATIC_LINK", "LINK", "relationshipType"},
		{`"FIRMWARE"`, `"FIRM"`, "primaryPackagePurpose"},
		{`"BSD-3-Clause"`, `"BSD 3"`, "license"},
		{`"BSD-3-Clause"`, `""`, "license"},
		{"Organization: Debian", "Debian", "supplier"},
		{"0a0a0a0a", "0A0A0A0A", "checksum"},
		{"pkg:golang", "golang", "externalRef"},
		{`"filesAnalyzed": false`, `"filesAnalyzed": true`, "filesAnalyzed"},
		{`"downloadLocation": "NOASSERTION"`, `"downloadLocation": ""`, "downloadLocation"},
		{`"copyrightText": "NOASSERTION"`, `"copyrightText": ""`, "copyrightText"},
		{`"documentDescribes"`, `"describes"`, "unknown field"},
		{`"SPDXRef-firmware-ballast-x-1.2"`, `"SPDXRef-binary-bb"`, "documentDescribes"},
	} {
		bad := strings.Replace(string(good), tt.old, tt.new, 1)
		if bad == string(good) {
			t.Errorf("%q is not in the document", tt.old)
			continue
		}
		if err := Check([]byte(bad)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s -> %s: error %v, want %q", tt.old, tt.new, err, tt.want)
		}
	}
}

func TestLicense(t *testing.T) {
	const mit = "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this... The above copyright\nnotice and this permission notice shall ... THE SOFTWARE IS PROVIDED \"AS IS\""
	const bsd2 = "Redistribution and use in source and binary forms ... Redistributions in binary form\n  must reproduce"
	for text, want := range map[string]string{
		"":                             "",
		"All rights reserved.":         "",
		"Copyright (c) 2020 A\n" + mit: "MIT",
		bsd2:                           "BSD-2-Clause",
		bsd2 + " to endorse or promote products derived from this software":                                         "BSD-3-Clause",
		bsd2 + " endorse or promote products derived from this software " + mit:                                     "BSD-3-Clause AND MIT",
		"Apache License\n Version 2.0, January 2004\n TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION": "Apache-2.0",
	} {
		if got := License(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestNotice(t *testing.T) {
	got := Notice("MIT License\n\n  Copyright (c) 2020 A. B.\nCopyright 2009 The Go Authors.\nCopyright (c) 2020 A. B.\nThe above copyright notice\n© 2021 C\nCopyright notice\n")
	if want := "Copyright (c) 2020 A. B.\nCopyright 2009 The Go Authors.\n© 2021 C"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"LICENSE.md": "Copyright 2001 X\nthis is free and unencumbered software released into the public domain", "license_test.go": "gnu general public license version 2, june 1991",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if l, n := Folder(dir); l != "Unlicense" || n != "Copyright 2001 X" {
		t.Errorf("%q, %q", l, n)
	}
	if l, n := Folder(filepath.Join(dir, "none")); l != "" || n != "" {
		t.Errorf("%q, %q", l, n)
	}
}
