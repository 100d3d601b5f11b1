//go:build race

package vk_test

// raceDetector: the race detector allocates memory for all memory that the process has ever accessed.
const raceDetector = true
