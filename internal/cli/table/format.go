package table

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Values that Markdown shows with a unit or rounded. The other formats have the plain number.
type (
	Size   uint64  // bytes
	MiB    float64 // mebibytes
	Millis float64 // milliseconds
	Share  float64 // part of 1
)

// Untrusted is text from elsewhere, such as a file. In Markdown and CSV its control characters, line breaks, backslashes
// and characters that reorder text are Go's escapes, as in \x1b, and in Markdown its markup is escaped too. JSON has it
// as it is.
type Untrusted string

// Absent is a missing value: "absent" in Markdown, null in JSON, empty in CSV.
type Absent struct{}

func (Absent) String() string { return "absent" }

func (Absent) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// InMillis converts a duration to milliseconds.
func InMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// number converts values of float kinds.
func number(v any) (float64, bool) {
	r := reflect.ValueOf(v)
	if r.IsValid() && r.CanFloat() {
		return r.Float(), true
	}
	return 0, false
}

// plain formats a value for CSV.
func plain(v any) string {
	if f, ok := number(v); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	switch x := v.(type) {
	case nil, Absent:
		return ""
	case Size:
		return strconv.FormatUint(uint64(x), 10)
	case Untrusted:
		return escaped(string(x))
	}
	return fmt.Sprint(v)
}

// escaped writes characters as Go's escapes that a terminal would not show as themselves.
func escaped(text string) string {
	var out strings.Builder
	for _, r := range text {
		if r == '\\' || !unicode.IsPrint(r) && (!unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Bidi_Control, r)) {
			quoted := strconv.Quote(string(r))
			out.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}

// markup is what Markdown, or HTML in it, would take as markup within a line.
var markup = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "|", `\|`, "~", `\~`, "$", `\$`,
	"<", "&lt;", ">", "&gt;", "&", "&amp;")

// Markdown formats a value for Markdown and HTML tables.
func Markdown(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case bool:
		return map[bool]string{true: "yes", false: "no"}[x]
	case Millis:
		return Significant(float64(x))
	case Share:
		if x > 0 && x < 0.0995 {
			return fmt.Sprintf("%.1f %%", 100*float64(x))
		}
		return fmt.Sprintf("%.0f %%", 100*float64(x))
	case Size:
		return x.String()
	case MiB:
		return Size(x * (1 << 20)).String()
	case float64:
		return Significant(x)
	case Untrusted:
		return markup.Replace(escaped(string(x)))
	}
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(fmt.Sprint(v))
}

// Significant formats a number with four significant digits and with commas, without an exponent from 0.001 to 1e15.
func Significant(x float64) string {
	if a := math.Abs(x); a >= 1e-3 && a < 1e15 {
		return Thousands(strconv.FormatFloat(x, 'f', min(max(3-int(math.Floor(math.Log10(a))), 0), 6), 64))
	}
	return fmt.Sprintf("%.3g", x)
}

// Thousands puts commas into the integer part of a decimal number.
func Thousands(number string) string {
	sign := number[:len(number)-len(strings.TrimPrefix(number, "-"))]
	integer, rest := number[len(sign):], ""
	if i := strings.IndexAny(integer, ".e"); i >= 0 {
		integer, rest = integer[:i], integer[i:]
	}
	for i := len(integer) - 3; i > 0; i -= 3 {
		integer = integer[:i] + "," + integer[i:]
	}
	return sign + integer + rest
}

// TimeUnit returns the unit in which a time in milliseconds is a number from 1 to 1,000, if there is one, and the
// factor to it.
func TimeUnit(ms float64) (factor float64, unit string) {
	switch a := math.Abs(ms); {
	case a >= 1e3:
		return 1e-3, "s"
	case a >= 1:
		return 1, "ms"
	case a >= 1e-3:
		return 1e3, "µs"
	}
	return 1e6, "ns"
}

// Time formats a time in milliseconds with four significant digits and a unit.
func Time(ms float64) string {
	factor, unit := TimeUnit(ms)
	return Significant(ms*factor) + " " + unit
}

// String formats the size with a unit.
func (s Size) String() string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	x, i := float64(s), 0
	for x >= 1024 && i < len(units)-1 {
		x /= 1024
		i++
	}
	if x == math.Trunc(x) {
		return fmt.Sprintf("%.0f %s", x, units[i])
	}
	return fmt.Sprintf("%.2f %s", x, units[i])
}
