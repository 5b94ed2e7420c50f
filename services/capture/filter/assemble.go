package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// Of each frame of Ethernet the program notes first where the network header
// is, and of what type it is.
const (
	networkAt = 0
	typeAt    = 1
)

// label is a place in the program.
type label struct{ at int }

// step is one instruction, or a jump to labels.
type step struct {
	ins     bpf.Instruction
	jump    bool
	test    bpf.JumpTest
	val     uint32
	yes, no *label
	far     bool // its labels are further away than a conditional jump reaches
	at      int  // where it is in the program
}

type assembler struct {
	link  Link
	steps []step
	err   error
}

func (a *assembler) emit(i bpf.Instruction) { a.steps = append(a.steps, step{ins: i}) }

func (a *assembler) jump(test bpf.JumpTest, val uint32, yes, no *label) {
	a.steps = append(a.steps, step{jump: true, test: test, val: val, yes: yes, no: no})
}

// mark puts a label here.
func (a *assembler) mark(l *label) { l.at = len(a.steps) }

// assemble makes the program: of what passes e, snap bytes.
func assemble(e node, link Link, snap uint32) (*Program, error) {
	a := &assembler{link: link}
	if e != nil && link == Ethernet {
		a.prologue()
	}
	yes, no := &label{}, &label{}
	if e != nil {
		e.code(a, yes, no)
	}
	a.mark(yes)
	a.emit(bpf.RetConstant{Val: snap})
	a.mark(no)
	a.emit(bpf.RetConstant{Val: 0})
	if a.err != nil {
		return nil, a.err
	}
	ins := a.resolve()
	if len(ins) > most {
		return nil, fmt.Errorf("filter: it makes %d instructions, and the kernel takes %d: make it shorter", len(ins), most)
	}
	raw, err := bpf.Assemble(ins)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return &Program{Instructions: ins, Raw: raw}, nil
}

// prologue steps over a VLAN tag that is in the frame.
func (a *assembler) prologue() {
	tag, plain, more, rest := &label{}, &label{}, &label{}, &label{}
	a.emit(bpf.LoadAbsolute{Off: 12, Size: 2})
	a.jump(bpf.JumpEqual, typeVLAN, tag, more)
	a.mark(more)
	a.jump(bpf.JumpEqual, typeQinQ, tag, plain)
	a.mark(tag)
	a.emit(bpf.LoadAbsolute{Off: 16, Size: 2})
	a.emit(bpf.StoreScratch{Src: bpf.RegA, N: typeAt})
	a.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: 18})
	a.jump(bpf.JumpGreaterOrEqual, 0, rest, rest)
	a.mark(plain)
	a.emit(bpf.StoreScratch{Src: bpf.RegA, N: typeAt})
	a.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: 14})
	a.mark(rest)
	a.emit(bpf.StoreScratch{Src: bpf.RegA, N: networkAt})
}

// resolve turns labels into distances. A conditional jump reaches 255
// instructions; one that has further to go jumps to jumps.
func (a *assembler) resolve() []bpf.Instruction {
	var end int
	for again := true; again; {
		again = false
		end = 0
		for i := range a.steps {
			s := &a.steps[i]
			s.at = end
			switch {
			case !s.jump || s.yes == s.no:
				end++
			case s.far:
				end += 3
			default:
				end++
			}
		}
		for i := range a.steps {
			s := &a.steps[i]
			if s.jump && !s.far && s.yes != s.no && max(a.place(s.yes), a.place(s.no))-s.at-1 > 255 {
				s.far, again = true, true
			}
		}
	}
	out := make([]bpf.Instruction, 0, end)
	for i := range a.steps {
		s := &a.steps[i]
		switch {
		case !s.jump:
			out = append(out, s.ins)
		case s.yes == s.no:
			out = append(out, bpf.Jump{Skip: uint32(a.place(s.yes) - s.at - 1)})
		case s.far:
			out = append(out, bpf.JumpIf{Cond: s.test, Val: s.val, SkipTrue: 0, SkipFalse: 1},
				bpf.Jump{Skip: uint32(a.place(s.yes) - s.at - 2)}, bpf.Jump{Skip: uint32(a.place(s.no) - s.at - 3)})
		default:
			out = append(out, bpf.JumpIf{Cond: s.test, Val: s.val, SkipTrue: uint8(a.place(s.yes) - s.at - 1), SkipFalse: uint8(a.place(s.no) - s.at - 1)})
		}
	}
	return out
}

// place is where in the program a label is.
func (a *assembler) place(l *label) int { return a.steps[l.at].at }
