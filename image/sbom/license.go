package sbom

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// marks are sentences by which a license text is known, without case and with
// single blanks. A license is told when all of its sentences are there.
var marks = []struct {
	license string
	words   []string
	not     []string
}{
	{"Apache-2.0", []string{"apache license", "version 2.0, january 2004", "terms and conditions for use, reproduction, and distribution"}, nil},
	{"Apache-2.0", []string{"licensed under the apache license, version 2.0 (the \"license\")"}, nil},
	{"MPL-2.0", []string{"mozilla public license version 2.0", "1. definitions"}, nil},
	{"MIT", []string{"permission is hereby granted, free of charge, to any person obtaining a copy", "the above copyright notice and this permission notice", "the software is provided \"as is\""}, nil},
	{"ISC", []string{"permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted", "the above copyright notice and this permission notice appear in all copies"}, nil},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "redistributions in binary form must reproduce", "endorse or promote products derived from this software"}, nil},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms", "redistributions in binary form must reproduce"}, []string{"endorse or promote products"}},
	{"LGPL-3.0-only", []string{"gnu lesser general public license version 3, 29 june 2007"}, nil},
	{"GPL-3.0-only", []string{"gnu general public license version 3, 29 june 2007"}, []string{"gnu lesser general public license version 3"}},
	{"GPL-2.0-only", []string{"gnu general public license version 2, june 1991"}, nil},
	{"Unlicense", []string{"this is free and unencumbered software released into the public domain"}, nil},
}

// License tells which licenses a text holds, as an SPDX expression; "" when none
// is known by its sentences.
func License(text string) string {
	text = strings.ToLower(strings.Join(strings.Fields(strings.NewReplacer("“", `"`, "”", `"`, "``", `"`, "''", `"`).Replace(text)), " "))
	var out []string
	for _, m := range marks {
		has := func(w string) bool { return strings.Contains(text, w) }
		missing := slices.ContainsFunc(m.words, func(w string) bool { return !has(w) })
		if !missing && !slices.ContainsFunc(m.not, has) && !slices.Contains(out, m.license) {
			out = append(out, m.license)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " AND ")
}

var copyrightForm = regexp.MustCompile(`(?i)^[\s#*/]*(copyright (\(c\)|©|\d)|\(c\) \d|© ?\d).*`)

// Notice is the lines of a text that say whose it is, each once.
func Notice(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if copyrightForm.MatchString(line) && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)(\.(md|txt|mit|bsd))?$`)

// Folder reads the license files of a module's folder. What cannot be read is not
// known.
func Folder(dir string) (license, notice string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", ""
	}
	var text strings.Builder
	for _, e := range entries { // sorted by name
		if e.Type().IsRegular() && licenseFile.MatchString(e.Name()) {
			if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
				text.Write(b)
				text.WriteByte('\n')
			}
		}
	}
	return License(text.String()), Notice(text.String())
}
