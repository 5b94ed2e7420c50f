package conf

import (
	"context"
	"errors"
	"testing"

	"ballast/services/conf/pair"
)

// A word of the other box may arrive when this service has let go already of
// what it held: it must not be acted on.
func TestWordAfterTheEnd(t *testing.T) {
	c := &conf{}
	record := pair.Record{Txn: "0123456789abcdef0123456789abcdef", Generation: 3, Before: "x"}
	c.pair.part.Prepared(record)
	if err := c.applyFor(context.Background(), pair.Message{Kind: pair.Apply, Txn: record.Txn}); !errors.Is(err, errStops) {
		t.Fatalf("apply: %v", err)
	}
	c.pair.part.Applied()
	for _, a := range []pair.Act{pair.Finish, pair.Undo, pair.GiveUp} {
		if err := c.act(context.Background(), a, false); !errors.Is(err, errStops) {
			t.Errorf("%v: %v", a, err)
		}
	}
	if !c.pair.part.Held() {
		t.Error("the record is gone: the next start has nothing to ask about")
	}
}
