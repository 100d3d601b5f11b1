// Modulezip writes the zip file of a module's version to standard output, as a module proxy would serve it: folders that
// are modules of their own are left out.
//
//	go -C scripts run ./modulezip FOLDER VERSION > VERSION.zip
package main

import (
	"log"
	"os"
	"path/filepath"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("modulezip: ")
	if len(os.Args) != 3 {
		log.Fatal("usage: modulezip FOLDER VERSION")
	}
	folder, version := os.Args[1], os.Args[2]
	mod, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		log.Fatal(err)
	}
	if err := zip.CreateFromDir(os.Stdout, module.Version{Path: modfile.ModulePath(mod), Version: version}, folder); err != nil {
		log.Fatal(err)
	}
}
