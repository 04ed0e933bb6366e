package access

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// minPassword is how many characters a password has at least.
const minPassword = 12

// MaxPassword is how many bytes of a password are ever hashed, so none is longer.
const MaxPassword = 1024

// runs are characters in the order in which lazy fingers find them.
var runs = func() []string {
	forward := []string{"0123456789", "1234567890", "abcdefghijklmnopqrstuvwxyz",
		"qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm", "azertyuiopqsdfghjklmwxcvbn",
		"1qaz2wsx3edc4rfv5tgb6yhn7ujm", "q1w2e3r4t5y6u7i8o9p0", "1q2w3e4r5t6y7u8i9o0p"}
	all := make([]string, 0, 2*len(forward))
	for _, r := range forward {
		b := []byte(r + r) // a run may begin again
		all = append(all, string(b))
		slices.Reverse(b)
		all = append(all, string(b))
	}
	return all
}()

// common are the words that guessed passwords are made of: the top of published
// lists of leaked passwords, without digits and signs, and what this program
// adds to them.
var common = strings.Fields(`
	access account acme admin administrator adobe airborne alexander alexis amanda america andrea andrew angel angela animal anthony apple arsenal ashley august
	austin autumn azerty baby babygirl bailey banana barcelona barney baseball basketball batman beautiful benjamin bigdog blessed blink booboo boston brandon brandy
	bubbles buster butterfly cameron captain changeme charlie cheese chelsea chester chicken chocolate chris christian clinton coffee company computer cookie cooper corvette
	cowboy daniel database december default demo diamond dolphin donald dragon eagles element elizabeth enter everton family fender ferrari flower football forever freedom
	friday friends fuckyou gateway george ginger golden google guest guitar hacker hammer hannah harley heather hello hockey hunter iceman iloveyou infinity internet
	jackson jasmine jennifer jessica jesus jordan joseph joshua justin killer kitten knight ladies lakers letmein liverpool login london love lovely lovers
	maggie manager marina martin master matrix matthew maverick melissa merlin michael michelle mickey midnight million monday money monkey monster morgan mother mustang
	naruto nascar nicole ninja november october office oliver orange pager pass passphrase password passwort patrick peanut pepper phoenix pokemon prince princess private
	purple qazwsx qwerty rabbit rainbow ranger robert root samantha samsung secret september server shadow soccer spider spring steelers sterling summer sunday sunshine
	superman superstar system taylor temp tennis test tester thomas thunder tigger tinkerbell trustno trustpager user victoria welcome whatever william winner winter
	wizard work workspace yankees yellow zaq xsw`)

// leet are signs that stand for letters.
var leet = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i")

// WeakPassword says what is wrong with a password that a person has chosen, ""
// if it will do. own is what others know of them: their name, e-mail address or
// company.
func WeakPassword(password string, own ...string) string {
	switch {
	case utf8.RuneCountInString(password) < minPassword:
		return "at least 12 characters long"
	case len(password) > MaxPassword:
		return "at most 1,024 bytes long"
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return "text"
	}
	plain := letters(password, unicode.IsLetter, unicode.IsDigit)
	for _, o := range own {
		before, _, _ := strings.Cut(o, "@")
		for _, o := range []string{o, before} {
			if o = letters(o, unicode.IsLetter, unicode.IsDigit); o != "" && core(plain, o) == "" {
				return "something else than your name, your e-mail address or your company"
			}
		}
	}
	guessed := slices.ContainsFunc(runs, func(run string) bool { return strings.Contains(run, plain) }) || repeats(plain)
	if !guessed {
		// Digits and signs around a word are what everybody adds.
		word := strings.TrimFunc(strings.ToLower(password), func(r rune) bool { return !unicode.IsLetter(r) && r != '@' && r != '$' })
		guessed = made(letters(word, unicode.IsLetter)) || made(letters(leet.Replace(word), unicode.IsLetter))
	}
	if guessed {
		return "something that is not guessed at once, such as four words that have nothing to do with each other"
	}
	return ""
}

// letters returns s in lower case with nothing but the characters of the kinds.
func letters(s string, kinds ...func(rune) bool) string {
	return strings.Map(func(r rune) rune {
		for _, is := range kinds {
			if is(r) {
				return r
			}
		}
		return -1
	}, strings.ToLower(s))
}

// core returns what is left of s without word and the digits around it.
func core(s, word string) string {
	return strings.TrimFunc(strings.ReplaceAll(s, word, ""), unicode.IsDigit)
}

// made reports whether s is made of one or two common words, or of runs on the
// keyboard with one.
func made(s string) bool {
	rest := func(s string) bool {
		return s == "" || slices.Contains(common, s) || len(s) > 2 && slices.ContainsFunc(runs, func(run string) bool { return strings.Contains(run, s) })
	}
	for i := range s {
		if rest(s[:i]) && rest(s[i:]) {
			return true
		}
	}
	return s == "" || repeats(s)
}

// repeats reports whether s is a few characters, or a common word, over and over.
func repeats(s string) bool {
	for n := 1; n <= len(s)/2; n++ {
		if unit := s[:n]; (n <= 4 || slices.Contains(common, unit)) && strings.HasPrefix(strings.Repeat(unit, len(s)/n+1), s) {
			return true
		}
	}
	return s == ""
}
