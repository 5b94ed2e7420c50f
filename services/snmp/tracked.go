package snmp

import (
	"slices"

	"ballast/configs/model"
)

func trackedInterfaces(f *facts) table {
	type row struct {
		index oid
		track model.TrackInterface
	}
	var list []row
	for i, c := range f.conf.Instances {
		for _, t := range c.TrackInterfaces {
			if n := f.linkIndex(t.Interface); n > 0 {
				list = append(list, row{oid{uint32(i + 1), uint32(n)}, t})
			}
		}
	}
	slices.SortFunc(list, func(a, b row) int { return slices.Compare(a.index, b.index) })
	rows := make([]oid, len(list))
	for i := range list {
		rows[i] = list[i].index
	}
	return table{mibVRRP.with(4, 1), []column{
		always(1, func(i int) value { return text(list[i].track.Interface) }),
		always(2, func(i int) value { return integer(list[i].track.Weight) }),
	}, rows}
}

func trackedScripts(f *facts) table {
	var rows []oid
	var list []model.TrackScript
	for i, c := range f.conf.Instances {
		for j, t := range c.TrackScripts {
			rows = append(rows, oid{uint32(i + 1), uint32(j + 1)})
			list = append(list, t)
		}
	}
	return table{mibVRRP.with(5, 1), []column{
		always(2, func(i int) value { return text(list[i].Script) }),
		always(3, func(i int) value { return integer(list[i].Weight) }),
	}, rows}
}

func scripts(f *facts) table {
	c := f.conf.Scripts
	result := func(i int) value {
		for _, r := range f.notify.Scripts {
			switch {
			case r.Name != c[i].Name:
			case r.Missing:
				return integer(0)
			case !r.Known && c[i].InitFail:
				return integer(5)
			case !r.Known:
				return integer(1)
			case r.OK:
				return integer(3)
			default:
				return integer(2)
			}
		}
		return integer(1)
	}
	return table{mibVRRP.with(9, 1), []column{
		always(2, func(i int) value { return text(c[i].Name) }),
		always(3, func(i int) value { return text(command(c[i].Command)) }),
		always(4, func(i int) value { return integer(int(c[i].Interval.Seconds())) }),
		always(5, func(i int) value { return integer(c[i].Weight) }),
		always(6, result),
		always(7, func(i int) value { return unsigned(uint64(c[i].Rise)) }),
		always(8, func(i int) value { return unsigned(uint64(c[i].Fall)) }),
	}, rowsOf(len(c))}
}

func trackedFiles(f *facts) table {
	var rows []oid
	var names []string
	for i, c := range f.conf.Instances {
		for j, t := range c.TrackFiles {
			rows = append(rows, oid{uint32(i + 1), uint32(j + 1)})
			names = append(names, t.Name)
		}
	}
	return table{mibVRRP.with(12, 1), []column{always(2, func(i int) value { return text(names[i]) })}, rows}
}

func files(f *facts) table {
	c := f.conf.TrackFiles
	return table{mibVRRP.with(13, 1), []column{
		always(2, func(i int) value { return text(c[i].Name) }),
		always(3, func(i int) value { return text(c[i].Path) }),
		always(4, func(i int) value {
			for _, r := range f.notify.Files {
				if r.Name == c[i].Name {
					return integer(r.Value)
				}
			}
			return integer(0)
		}),
	}, rowsOf(len(c))}
}
