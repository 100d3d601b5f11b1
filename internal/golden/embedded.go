package golden

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"io/fs"
)

// embedded holds some of the golden cases without their gradients, so that a program without a checkout can verify a
// device. Other cases, or those of a new module: change the list in embedded_test.go, and run
// go test ./internal/golden -run Embedded -update
//
//go:embed embedded.zip
var embedded []byte

// Embedded returns a file system with cases of all modules, for LoadFS. They have no gradients.
func Embedded() (fs.FS, error) { return zip.NewReader(bytes.NewReader(embedded), int64(len(embedded))) }
