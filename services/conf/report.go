package conf

import (
	"cmp"
	"strings"

	"ballast/configs"
	"ballast/configs/check"
	"ballast/configs/model"
	"ballast/configs/report"
)

// outcomes tells what becomes of each line of a candidate. The blocks of the
// running configuration that were merged behind it are not its own.
func (c *conf) outcomes(name, text string, k checked, facts *check.Facts) []model.Outcome {
	name = cmp.Or(name, "candidate")
	r := configs.Inspect(name, []byte(k.text), configs.Options{
		ConfigID: cmp.Or(shortName(k.config.System.HostName), shortName(hostName())),
		Facts:    facts, Open: included{k.files, c.store.Content}.open,
	})
	r.Problems = k.problems
	own := strings.Count(strings.TrimRight(text, "\n"), "\n") + 1
	var out []model.Outcome
	for _, o := range report.Lines(r) {
		if o.File != name || o.Line <= own {
			out = append(out, o)
		}
	}
	return out
}
