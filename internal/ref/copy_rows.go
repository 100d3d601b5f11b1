package ref

// CopyRows copies rows of width elements from x to y. Row r starts at element r * xPitch of x and r * yPitch of y.
func CopyRows[E any](y, x []E, rows, width, xPitch, yPitch int) {
	for r := range rows {
		copy(y[r*yPitch:][:width], x[r*xPitch:][:width])
	}
}
