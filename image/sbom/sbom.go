// Package sbom writes what a firmware is made of as an SPDX 2.3 document in JSON
// (https://spdx.github.io/spdx-spec/v2.3/), the same bytes for the same parts.
package sbom

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Unknown is SPDX's word for what nobody has looked at or can tell.
const Unknown = "NOASSERTION"

// Part is one component.
type Part struct {
	Kind     string // begins its identifier: "go", "deb", "binary"
	Name     string
	Version  string
	Purpose  string // one of purposes, or ""
	Supplier string // "Organization: Debian", "" for nobody known
	SHA256   string // of the file that it came as, in hex, or ""
	License  string // an SPDX expression that its own text tells, "" for unknown
	Notice   string // its lines of copyright, "" for unknown
	PURL     string // package URL, or ""
	Comment  string
}

// Document is the parts of one firmware and how they belong together.
type Document struct {
	Name    string // of the document
	Tool    string // that made it, with its version
	Created time.Time
	parts   map[string]Part
	edges   map[edge]bool
}

type edge struct{ from, kind, to string }

// Kinds of relationships.
const (
	Contains   = "CONTAINS"
	StaticLink = "STATIC_LINK"
	documentID = "SPDXRef-DOCUMENT"
)

// Add adds a part that belongs to another one, "" for the firmware itself, of
// which there is one, and returns its identifier. The same part may be added
// again, for another one that has it too.
func (d *Document) Add(p Part, of, kind string) string {
	if d.parts == nil {
		d.parts, d.edges = map[string]Part{}, map[edge]bool{}
	}
	id := "SPDXRef-" + clean(p.Kind+"-"+p.Name)
	if p.Version != "" {
		id += "-" + clean(p.Version)
	}
	for n := 2; ; n++ { // what clean made alike
		if old, taken := d.parts[id]; !taken || old == p {
			break
		}
		id = fmt.Sprintf("%s-%d", strings.TrimSuffix(id, fmt.Sprintf("-%d", n-1)), n)
	}
	d.parts[id] = p
	if of == "" {
		of, kind = documentID, "DESCRIBES"
	}
	d.edges[edge{of, kind, id}] = true
	return id
}

// clean keeps the characters of an identifier (section 3.2: letters, digits, "."
// and "-").
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, s)
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxPackage struct {
	ID            string      `json:"SPDXID"`
	Name          string      `json:"name"`
	Version       string      `json:"versionInfo,omitempty"`
	Supplier      string      `json:"supplier"`
	Download      string      `json:"downloadLocation"`
	FilesAnalyzed bool        `json:"filesAnalyzed"`
	Purpose       string      `json:"primaryPackagePurpose,omitempty"`
	Checksums     []checksum  `json:"checksums,omitempty"`
	Concluded     string      `json:"licenseConcluded"`
	Declared      string      `json:"licenseDeclared"`
	Copyright     string      `json:"copyrightText"`
	References    []reference `json:"externalRefs,omitempty"`
	Comment       string      `json:"comment,omitempty"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Describes     []string       `json:"documentDescribes"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

func orUnknown(s string) string { return cmp.Or(s, Unknown) }

// JSON is the document. What Check finds wrong with it is an error.
func (d *Document) JSON() ([]byte, error) {
	out := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: documentID, Name: d.Name,
		Creation: creation{d.Created.UTC().Format(time.RFC3339), []string{"Tool: " + d.Tool}},
	}
	for id, p := range d.parts {
		sp := spdxPackage{
			ID: id, Name: p.Name, Version: p.Version, Supplier: orUnknown(p.Supplier), Download: Unknown, Purpose: p.Purpose,
			Concluded: Unknown, Declared: orUnknown(p.License), Copyright: orUnknown(p.Notice), Comment: p.Comment,
		}
		if p.SHA256 != "" {
			sp.Checksums = []checksum{{"SHA256", p.SHA256}}
		}
		if p.PURL != "" {
			sp.References = []reference{{"PACKAGE-MANAGER", "purl", p.PURL}}
		}
		out.Packages = append(out.Packages, sp)
	}
	slices.SortFunc(out.Packages, func(a, b spdxPackage) int { return strings.Compare(a.ID, b.ID) })
	for e := range d.edges {
		out.Relationships = append(out.Relationships, relationship{e.from, e.kind, e.to})
		if e.from == documentID {
			out.Describes = append(out.Describes, e.to)
		}
	}
	slices.Sort(out.Describes)
	slices.SortFunc(out.Relationships, func(a, b relationship) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.Kind, b.Kind), strings.Compare(a.To, b.To))
	})
	// The namespace must differ wherever the content does.
	content, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("sbom: %w", err)
	}
	sum := sha256.Sum256(content)
	out.Namespace = "https://spdx.org/spdxdocs/" + clean(d.Name) + "-" + hex.EncodeToString(sum[:16])
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("sbom: %w", err)
	}
	b = append(b, '\n')
	return b, Check(b)
}
