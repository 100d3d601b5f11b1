package cases

// numbers has the meaning of every number of a size, by the name that it has in all cases.
var numbers = map[string]struct {
	meaning string
	zero    bool // the number may be 0
}{
	"batch":                  {meaning: "items of the batch"},
	"tokens":                 {meaning: "tokens of an item"},
	"dim":                    {meaning: "elements of a token or row"},
	"heavy tokens":           {meaning: "tokens that each router selects for the heavy branch"},
	"heavy attention tokens": {meaning: "tokens that each router of the attention selects; that of the feedforward selects one in 32"},
	"heavy keys":             {meaning: "keys and values that each route selects for a window of queries"},
	"depth":                  {meaning: "layers of the model"},

	"memories": {meaning: "tokens of an item's context, which the keys and values come from"},
	"routes":   {meaning: "routing tokens, each of which selects tokens of its own"},
	"block":    {meaning: "tokens of a block, from each of which as many are selected; 0: the whole context is one block", zero: true},

	"rows":       {meaning: "independent rows"},
	"entries":    {meaning: "entries of a row"},
	"k":          {meaning: "entries or tokens to select"},
	"iterations": {meaning: "iterations of coordinate descent"},
	"1000 eps":   {meaning: "a constant eps, times 1,000; 0: the schedule of a router, from 4 to 0.03", zero: true},

	"records": {meaning: "steps whose records the device keeps"},

	"in":         {meaning: "inputs of a row: elements of x"},
	"out":        {meaning: "outputs of a row: elements of y"},
	"vocabulary": {meaning: "rows of the table of embeddings"},

	"queries":  {meaning: "queries of an item"},
	"keys":     {meaning: "keys of an item"},
	"heads":    {meaning: "heads of the attention"},
	"dim head": {meaning: "elements of a head"},
	"window":   {meaning: "tokens of a window; of image, height and width of a window in pixels"},
	"windows":  {meaning: "windows of a sequence"},

	"channels": {meaning: "channels of an image"},
	"pixels":   {meaning: "pixels of an image"},
	"side":     {meaning: "height and width of an image in pixels"},
	"height":   {meaning: "height of an image in pixels"},
	"width":    {meaning: "width of an image in pixels"},
	"patch":    {meaning: "height and width of a patch in pixels"},
}

// Meaning explains a number of a size.
func Meaning(dim string) string { return numbers[dim].meaning }
