package follow

import "ballast/configs/model"

// delta says how one list of virtual servers came out of another.
type delta struct {
	// from has, for each virtual server of the new list, the place in the old
	// one where the same stood; -1: nowhere.
	from             []int32
	changed, removed []string
	moved            bool // the same ones stand in another order
}

// difference compares two lists of virtual servers by name.
func difference(old, next []model.VirtualServer) *delta {
	d := &delta{from: make([]int32, len(next))}
	met := make([]bool, len(old))
	var index map[string]int
	at, last, known := 0, -1, 0
	for i := range next {
		v := &next[i]
		j := -1
		if at < len(old) && old[at].Name == v.Name {
			j = at
		} else {
			if index == nil {
				index = make(map[string]int, len(old))
				for k := len(old) - 1; k >= 0; k-- {
					index[old[k].Name] = k
				}
			}
			if k, ok := index[v.Name]; ok {
				j = k
			}
		}
		d.from[i] = -1
		if j >= 0 {
			at = j + 1
			if !met[j] {
				known++
			}
			met[j] = true
			if j < last {
				d.moved = true
			}
			last = j
			if sameServer(&old[j], v) {
				d.from[i] = int32(j)
				continue
			}
		}
		d.changed = append(d.changed, v.Name)
	}
	if known < len(old) {
		for j := range old {
			if !met[j] {
				d.removed = append(d.removed, old[j].Name)
			}
		}
	}
	return d
}
