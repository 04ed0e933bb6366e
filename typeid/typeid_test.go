package typeid

import (
	"slices"
	"testing"

	"github.com/google/uuid"
)

func TestEncodeFollowsTheSpecification(t *testing.T) {
	// From the TypeID specification's table of valid ids.
	for id, want := range map[string]string{
		"00000000-0000-0000-0000-000000000000": "00000000000000000000000000",
		"00000000-0000-0000-0000-000000000001": "00000000000000000000000001",
		"00000000-0000-0000-0000-00000000000a": "0000000000000000000000000a",
		"00000000-0000-0000-0000-000000000010": "0000000000000000000000000g",
		"00000000-0000-0000-0000-000000000020": "00000000000000000000000010",
		"ffffffff-ffff-ffff-ffff-ffffffffffff": "7zzzzzzzzzzzzzzzzzzzzzzzzz",
		"0110c853-1d09-52d8-d73e-1194e95b5f19": "0123456789abcdefghjkmnpqrs",
		"01890a5d-ac96-774b-bcce-b302099a8057": "01h455vb4pex5vsknk084sn02q",
	} {
		if got := encode(uuid.MustParse(id)); got != want {
			t.Errorf("encode(%s): got %s, want %s", id, got, want)
		}
	}
}

func TestNewIDsAreValidDistinctAndInOrder(t *testing.T) {
	var ids []string
	for range 1000 {
		ids = append(ids, NewID("con"))
	}
	for _, id := range ids {
		if !ValidID("con", id) {
			t.Fatalf("ValidID(con, %s): got false, want true", id)
		}
	}
	if !slices.IsSorted(ids) {
		t.Error("ids of one process: got another order than that of their making")
	}
	if n := len(slices.Compact(ids)); n != 1000 {
		t.Errorf("distinct ids: got %d, want 1000", n)
	}
}

func TestValidIDRefusesOtherForms(t *testing.T) {
	const id = "con_01h455vb4pex5vsknk084sn02q"
	if !ValidID("con", id) {
		t.Fatalf("ValidID(con, %s): got false, want true", id)
	}
	for _, bad := range []string{
		"", "con", "con_", "01h455vb4pex5vsknk084sn02q",
		"cus_01h455vb4pex5vsknk084sn02q",
		"con-01h455vb4pex5vsknk084sn02q",
		"con_01h455vb4pex5vsknk084sn02",
		"con_01h455vb4pex5vsknk084sn02qq",
		"con_01H455VB4PEX5VSKNK084SN02Q", // one thing must not have two ids
		"con_81h455vb4pex5vsknk084sn02q", // more than 128 bits
		"con_01h455vb4pex5vsknk084sn02u", // u is no digit
		"con_01h455vb4pex5vsknk084sn0é",
	} {
		if ValidID("con", bad) {
			t.Errorf("ValidID(con, %q): got true, want false", bad)
		}
	}
}

func FuzzValidID(f *testing.F) {
	f.Add("con", "con_01h455vb4pex5vsknk084sn02q")
	f.Fuzz(func(t *testing.T, prefix, id string) {
		if ValidID(prefix, id) && len(id) != len(prefix)+1+suffixLen {
			t.Errorf("ValidID(%q, %q): got true for a wrong length", prefix, id)
		}
	})
}
