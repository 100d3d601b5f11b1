package pipelines

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/colt5-vulkan/colt5/shaders"
	"github.com/colt5-vulkan/colt5/vk"
)

// This file selects between variants of a kernel by the register spills that the driver's compiler reports. A kernel
// that spills to memory is much slower than one with less work per invocation.

// choose returns the index of the first of some variants, in order of preference, that compiles without spills; of
// those with the fewest spills if all spill. preset is the choice where the driver reports no spills; it is a pure
// function of deviceLimits. Nothing is compiled if there is one variant only. The choice is stored beside the pipeline
// cache, so that later processes compile one variant only.
//
// All variants may compute the same bits or not; the choice depends on the device and its driver alone.
func (k *kernelCache) choose(variants []kernelVariant, preset int) (int, error) {
	if len(variants) == 1 || !k.dev.Caps().PipelineStatistics {
		return preset, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key := ""
	for _, v := range variants {
		key += v.key()
	}
	if i, ok := k.chosen[key]; ok {
		return i, nil
	}
	purpose, err := choicePurpose(variants)
	if err != nil {
		return 0, err
	}
	names := make([]string, len(variants))
	for i, v := range variants {
		names[i] = v.name
	}
	best, err := chooseBySpills(k.dev, purpose, names, preset, func(i int) (uint64, bool, error) { return k.spills(variants[i]) })
	if err != nil {
		return 0, err
	}
	if k.chosen == nil {
		k.chosen = map[string]int{}
	}
	k.chosen[key] = best
	return best, nil
}

// choicePurpose is the key under which a choice is stored: it changes with the SPIR-V and the constants of the
// variants.
func choicePurpose(variants []kernelVariant) (string, error) {
	hash := fnv.New64a()
	for _, v := range variants {
		code, err := shaders.SPV(v.spv)
		if err != nil {
			return "", err
		}
		fmt.Fprint(hash, v.key(), v.subgroupSize, v.fullSubgroups)
		hash.Write(code)
	}
	return fmt.Sprintf("without spills: %s or less, %016x", variants[0].name, hash.Sum64()), nil
}

// choiceStore remembers choices: a vk.Device.
type choiceStore interface {
	StoredTuning(purpose string) string
	StoreTuning(variants map[string]string) error
}

// chooseBySpills is choose for named variants. spills compiles a variant and returns how much it spills, and false if
// the driver does not report that. Its error is vk.ErrUnsupported for a variant that the device cannot run.
func chooseBySpills(store choiceStore, purpose string, names []string, preset int, spills func(i int) (uint64, bool, error)) (int, error) {
	if i := slices.Index(names, store.StoredTuning(purpose)); i >= 0 {
		return i, nil
	}
	best, least := preset, uint64(0)
	for i, found := 0, false; i < len(names); i++ {
		n, known, err := spills(i)
		if errors.Is(err, vk.ErrUnsupported) && i != preset {
			continue
		}
		if err != nil {
			return 0, err
		}
		if !known {
			return preset, nil
		}
		if !found || n < least {
			best, least, found = i, n, true
		}
		if n == 0 {
			break
		}
	}
	// If this fails, a later process compiles the variants again.
	_ = store.StoreTuning(map[string]string{purpose: names[best]})
	return best, nil
}

// spills compiles a variant and returns what its statistics say about spills. A kernel without spills will be used, and
// stays in the cache. Where the driver does not report spills, the preset one is compiled again without statistics, as it
// has been measured.
func (k *kernelCache) spills(v kernelVariant) (n uint64, known bool, err error) {
	if k.closed {
		return 0, false, vk.ErrClosed
	}
	kernel, err := v.create(k.dev, true)
	if err != nil {
		return 0, false, err
	}
	stats, err := compilerStats(kernel)
	n, known = countSpills(stats)
	if err == nil && n == 0 && known && k.compiled[v.key()] == nil {
		k.add(v, kernel)
		return n, known, nil
	}
	return n, known, errors.Join(err, discardKernel(kernel))
}

// spillStats are the names of statistics that count accesses of spilled registers to memory, or the bytes of them.
var spillStats = []string{
	"Spilled VGPRs", "Scratch size", // AMD: RADV
	"Spills", "Fills", // Intel: ANV of Mesa 26; Apple: Honeykrisp
	"Spill Count", "Fill Count", // Intel: ANV of Mesa 25
	"Scratch",                // Apple
	"STP Count", "LDP Count", // Qualcomm: Turnip
	"Spills to memory", "Fills from memory", "SLM size", // NVIDIA: NVK; the last also counts arrays in memory
}

// countSpills adds up the statistics of spills. It returns false if there are none.
func countSpills(stats []vk.CompilerStat) (n uint64, known bool) {
	for _, s := range stats {
		if slices.Contains(spillStats, s.Name) {
			n, known = n+uint64(s.Value), true
		}
	}
	return n, known
}
