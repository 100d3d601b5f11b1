package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// sourceLine is a line that a variant compiles: includes are inserted, and lines under a false condition are left out.
type sourceLine struct {
	file   string // relative to shaders
	number int
	text   string
}

func (l sourceLine) errorf(format string, args ...any) error {
	return fmt.Errorf("shaders/src/%s:%d: %w", l.file, l.number, fmt.Errorf(format, args...))
}

// preprocessor evaluates the directives that decide which lines of a GLSL file a variant compiles. It does not expand
// macros in code.
type preprocessor struct {
	tree   tree
	macros map[string]string
	lines  []sourceLine
	depth  int
}

const maxIncludeDepth = 32 // an include cycle without guards ends here

// preprocess returns the lines of a variant's source, with its includes, under the macros of its flags.
func (t tree) preprocess(v variant) ([]sourceLine, error) {
	p := &preprocessor{tree: t, macros: map[string]string{}}
	for _, f := range v.flags {
		if define, ok := strings.CutPrefix(f, "-D"); ok {
			name, value, given := strings.Cut(define, "=")
			if !given {
				value = "1"
			}
			p.macros[name] = value
		}
	}
	return p.lines, p.include(v.source)
}

var directive = regexp.MustCompile(`^\s*#\s*(\w+)\s*(.*)$`)

// branch is an open #if: whether the lines around it are compiled, whether its current branch is, and whether any
// branch was.
type branch struct{ outer, active, taken bool }

func (p *preprocessor) include(file string) error {
	if p.depth++; p.depth > maxIncludeDepth {
		return fmt.Errorf("shaders/src/%s: includes are nested more than %d deep", file, maxIncludeDepth)
	}
	defer func() { p.depth-- }()
	text, err := os.ReadFile(filepath.Join(p.tree.shaders(), filepath.FromSlash(file)))
	if err != nil {
		return err
	}
	var open []branch
	for i, s := range strings.Split(string(text), "\n") {
		line := sourceLine{file, i + 1, s}
		active := len(open) == 0 || open[len(open)-1].active
		m := directive.FindStringSubmatch(s)
		switch {
		case m == nil:
			if active {
				p.lines = append(p.lines, line)
			}
		case strings.HasPrefix(m[1], "if") || strings.HasPrefix(m[1], "el") || m[1] == "endif":
			if open, err = p.condition(open, active, m[1], withoutComment(m[2])); err != nil {
				return line.errorf("%w", err)
			}
		case active:
			if err := p.directive(file, m[1], withoutComment(m[2]), s); err != nil {
				return line.errorf("%w", err)
			}
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("shaders/src/%s: an #if has no #endif", file)
	}
	return nil
}

func withoutComment(s string) string {
	s, _, _ = strings.Cut(s, "//")
	return strings.TrimSpace(s)
}

// condition applies #if, #ifdef, #ifndef, #elif, #else or #endif to the open conditions.
func (p *preprocessor) condition(open []branch, active bool, name, text string) ([]branch, error) {
	if strings.HasPrefix(name, "if") {
		on, err := active, error(nil)
		if active {
			on, err = p.evaluate(name, text)
		}
		return append(open, branch{outer: active, active: on, taken: on}), err
	}
	if len(open) == 0 {
		return nil, fmt.Errorf("#%s without #if", name)
	}
	last := &open[len(open)-1]
	switch name {
	case "endif":
		return open[:len(open)-1], nil
	case "else":
		last.active = last.outer && !last.taken
	case "elif":
		last.active = false
		if last.outer && !last.taken {
			on, err := p.evaluate("if", text)
			if err != nil {
				return open, err
			}
			last.active = on
		}
	default:
		return open, fmt.Errorf("#%s is not supported", name)
	}
	last.taken = last.taken || last.active
	return open, nil
}

// directive applies #include, #define and #undef; no other directive decides which lines are compiled.
func (p *preprocessor) directive(file, name, text, line string) error {
	switch name {
	case "include":
		m := include.FindStringSubmatch(line)
		if m == nil {
			return fmt.Errorf("#include %s is not supported", text)
		}
		next, err := p.tree.resolve(file, m[1]+m[2])
		if err != nil {
			return err
		}
		return p.include(next)
	case "define":
		macro, value, _ := strings.Cut(text, " ")
		macro, _, _ = strings.Cut(macro, "(")
		p.macros[macro] = strings.TrimSpace(value)
	case "undef":
		delete(p.macros, text)
	}
	return nil
}

var (
	definedRule    = regexp.MustCompile(`\bdefined\s*(?:\(\s*(\w+)\s*\)|(\w+))`)
	identifierRule = regexp.MustCompile(`\b[A-Za-z_]\w*\b`)
)

// evaluate evaluates the condition of an #if, #ifdef or #ifndef: integers, macros of integers, defined, comparisons and
// logic.
func (p *preprocessor) evaluate(name, text string) (bool, error) {
	switch name {
	case "ifdef", "ifndef":
		_, defined := p.macros[text]
		return defined == (name == "ifdef"), nil
	case "if":
	default:
		return false, fmt.Errorf("#%s is not supported", name)
	}
	expression := definedRule.ReplaceAllStringFunc(text, func(s string) string {
		m := definedRule.FindStringSubmatch(s)
		if _, ok := p.macros[m[1]+m[2]]; ok {
			return "1"
		}
		return "0"
	})
	expression = identifierRule.ReplaceAllStringFunc(expression, func(s string) string {
		if value, ok := p.macros[s]; ok {
			return value
		}
		return s
	})
	e, err := parser.ParseExpr(expression) // the operators that matter are the same in Go and GLSL
	if err != nil {
		return false, fmt.Errorf("#if %s: %w", text, err)
	}
	value, err := evaluateInteger(e)
	if err != nil {
		return false, fmt.Errorf("#if %s: %w", text, err)
	}
	return value != 0, nil
}

func evaluateInteger(e ast.Expr) (int64, error) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return evaluateInteger(e.X)
	case *ast.BasicLit:
		return strconv.ParseInt(e.Value, 0, 64)
	case *ast.UnaryExpr:
		x, err := evaluateInteger(e.X)
		switch e.Op {
		case token.NOT:
			return integer(x == 0), err
		case token.SUB:
			return -x, err
		}
	case *ast.BinaryExpr:
		x, err := evaluateInteger(e.X)
		if err != nil {
			return 0, err
		}
		y, err := evaluateInteger(e.Y)
		switch e.Op {
		case token.LAND:
			return integer(x != 0 && y != 0), err
		case token.LOR:
			return integer(x != 0 || y != 0), err
		case token.EQL:
			return integer(x == y), err
		case token.NEQ:
			return integer(x != y), err
		case token.LSS:
			return integer(x < y), err
		case token.LEQ:
			return integer(x <= y), err
		case token.GTR:
			return integer(x > y), err
		case token.GEQ:
			return integer(x >= y), err
		}
	case *ast.Ident:
		return 0, fmt.Errorf("%s is not an integer macro", e.Name)
	}
	return 0, fmt.Errorf("the expression is not supported")
}

func integer(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// stem is a file's name without folder and extension.
func stem(file string) string { return strings.TrimSuffix(path.Base(file), path.Ext(file)) }
