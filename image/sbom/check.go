package sbom

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	idForm      = regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	creatorForm = regexp.MustCompile(`^(Person|Organization|Tool): \S`)
	hexForm     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	purlForm    = regexp.MustCompile(`^pkg:[a-z]+/[^@\s?#]+(@[^@\s?#]+)?$`)
	// A license expression of the short identifiers that this package writes.
	licenseForm = regexp.MustCompile(`^[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*$`)
	uriForm     = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://[^\s#]+$`)
)

// purposes leave out that of an operating system, which the schemas of 2.3 and
// 2.3.1 spell differently.
var purposes = []string{"", "APPLICATION", "FRAMEWORK", "LIBRARY", "CONTAINER", "DEVICE", "FIRMWARE", "SOURCE", "ARCHIVE", "FILE", "INSTALL", "OTHER"}

// Check holds a document in JSON against the rules of SPDX 2.3 for what this
// package writes: fields that must be there and their form (sections 6, 7 and 11),
// identifiers that are unique, relationships that lead somewhere, and nothing that
// no relationship leads to.
func Check(b []byte) error {
	var d document
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	var errs []error
	want := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("sbom: "+format, a...))
		}
	}
	want(d.Version == "SPDX-2.3", "spdxVersion %q", d.Version)
	want(d.License == "CC0-1.0", "dataLicense %q", d.License)
	want(d.ID == documentID, "SPDXID %q of the document", d.ID)
	want(d.Name != "", "the document has no name")
	want(uriForm.MatchString(d.Namespace), "documentNamespace %q is no absolute URI without a fragment", d.Namespace)
	_, err := time.Parse("2006-01-02T15:04:05Z", d.Creation.Created)
	want(err == nil, "created %q: want YYYY-MM-DDThh:mm:ssZ", d.Creation.Created)
	want(len(d.Creation.Creators) > 0, "no creators")
	for _, c := range d.Creation.Creators {
		want(creatorForm.MatchString(c), "creator %q", c)
	}
	known := map[string]bool{documentID: true}
	for _, p := range d.Packages {
		want(idForm.MatchString(p.ID), "SPDXID %q", p.ID)
		want(!known[p.ID], "SPDXID %s is there twice", p.ID)
		known[p.ID] = true
		want(p.Name != "", "%s has no name", p.ID)
		want(p.Download == Unknown || p.Download == "NONE" || uriForm.MatchString(p.Download), "%s: downloadLocation %q", p.ID, p.Download)
		want(p.Supplier == Unknown || creatorForm.MatchString(p.Supplier) && !strings.HasPrefix(p.Supplier, "Tool"), "%s: supplier %q", p.ID, p.Supplier)
		want(!p.FilesAnalyzed, "%s: filesAnalyzed without a packageVerificationCode", p.ID)
		want(slices.Contains(purposes, p.Purpose), "%s: primaryPackagePurpose %q", p.ID, p.Purpose)
		for _, l := range []string{p.Concluded, p.Declared} {
			want(licenseForm.MatchString(l), "%s: license %q", p.ID, l)
		}
		want(p.Copyright != "", "%s: copyrightText is empty", p.ID)
		for _, c := range p.Checksums {
			want(c.Algorithm == "SHA256" && hexForm.MatchString(c.Value), "%s: checksum %s %q", p.ID, c.Algorithm, c.Value)
		}
		for _, r := range p.References {
			want(r.Category == "PACKAGE-MANAGER" && r.Type == "purl" && purlForm.MatchString(r.Locator), "%s: externalRef %+v", p.ID, r)
		}
	}
	reached := map[string]bool{}
	var described []string
	for i, r := range d.Relationships {
		want(known[r.From] && known[r.To], "relationship %s %s %s: there is no such element", r.From, r.Kind, r.To)
		want(slices.Contains([]string{"DESCRIBES", Contains, StaticLink}, r.Kind), "relationshipType %q", r.Kind)
		want(!slices.Contains(d.Relationships[:i], r), "relationship %s %s %s is there twice", r.From, r.Kind, r.To)
		reached[r.To] = true
		if r.Kind == "DESCRIBES" && r.From == documentID {
			described = append(described, r.To)
		}
	}
	want(len(described) > 0, "the document describes nothing")
	want(slices.Equal(described, d.Describes), "documentDescribes is %v, the relationships say %v", d.Describes, described)
	for _, p := range d.Packages {
		want(reached[p.ID], "%s belongs to nothing", p.ID)
	}
	return errors.Join(errs...)
}
