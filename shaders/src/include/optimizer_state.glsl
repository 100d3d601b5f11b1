// The words of an optimiser's state, which optimizer_state writes and adamw reads. Steps, updates, good and scale are kept
// from step to step, the others are those of the last step. The scale starts at a multiple of 16 bytes, so that it can be
// bound as a tensor.
#ifndef COLT5_OPTIMIZER_STATE
#define COLT5_OPTIMIZER_STATE

const uint STATE_STEPS = 0;     // u32: steps, with those that were skipped
const uint STATE_UPDATES = 1;   // u32: steps that were not skipped: t of AdamW and of the schedule
const uint STATE_GOOD = 2;      // u32: steps without overflow since the scale changed
const uint STATE_SKIP = 3;      // u32: 1 if parameters and moments are to stay as they are, else 0
const uint STATE_SCALE = 4;     // f32: what the next step's loss is to be multiplied by
const uint STATE_FACTOR = 5;    // f32: of the gradients, with the scale, the count of labels, and clipping
const uint STATE_RATE = 6;      // f32: learning rate
const uint STATE_STEP_SIZE = 7; // f32: rate / (1 - beta1^t)
const uint STATE_INVERSE = 8;   // f32: 1 / (1 - beta2^t)
const uint STATE_LOSS = 9;      // f32: mean loss of the labels
const uint STATE_NORM = 10;     // f32: norm of the gradients of the mean loss, before clipping
const uint STATE_LABELS = 11;   // f32: labels

#endif
