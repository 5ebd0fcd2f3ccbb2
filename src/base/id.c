/* id.c - packing time, shard, worker and sequence. */
#include "id.h"

#define MAX_MS ((INT64_C(1) << 40) - 1)

typedef struct layout {
    unsigned shard_bits, sequence_bits; /* the sequence's bits include the worker's */
} layout;

static layout layout_of(luna_id_layout which)
{
    return which == LUNA_ID_64 ? (layout){ 13, 10 } : (layout){ 7, 6 };
}

static uint32_t mask(unsigned bits)
{
    return (UINT32_C(1) << bits) - 1;
}

luna_status luna_id_init(luna_id_generator *gen, const luna_id_options *options, luna_err *err)
{
    layout l = layout_of(options->layout);
    if (options->shard > mask(l.shard_bits))
        return luna_err_set(err, LUNA_EINVAL, "shard is %u: must be 0 to %u", options->shard,
                            mask(l.shard_bits));
    if (options->worker_bits >= l.sequence_bits)
        return luna_err_set(err, LUNA_EINVAL, "worker_bits is %u: must be 0 to %u",
                            options->worker_bits, l.sequence_bits - 1);
    if (options->worker > mask(options->worker_bits))
        return luna_err_set(err, LUNA_EINVAL, "worker is %u: must be 0 to %u with %u worker_bits",
                            options->worker, mask(options->worker_bits), options->worker_bits);
    gen->options = *options;
    gen->last_ms = -1;
    gen->sequence = 0;
    return LUNA_OK;
}

luna_status luna_id_next(luna_id_generator *gen, int64_t now_ms, int64_t *id, luna_err *err)
{
    layout l = layout_of(gen->options.layout);
    unsigned counter_bits = l.sequence_bits - gen->options.worker_bits;
    int64_t ms;
    if (__builtin_sub_overflow(now_ms, gen->options.epoch_ms, &ms) || ms < 0)
        return luna_err_set(err, LUNA_EINVAL, "the clock is before the ids' epoch");

    uint32_t sequence = 0;
    if (ms <= gen->last_ms) {
        ms = gen->last_ms;
        sequence = gen->sequence + 1;
        if (sequence > mask(counter_bits)) {
            ms++;
            sequence = 0;
        }
    }
    if (ms > MAX_MS)
        return luna_err_set(err, LUNA_EINVAL, "the ids' epoch is over: 2^40 ms have passed");
    gen->last_ms = ms;
    gen->sequence = sequence;
    *id = ms << (l.shard_bits + l.sequence_bits) | (int64_t)gen->options.shard << l.sequence_bits |
          (int64_t)gen->options.worker << counter_bits | (int64_t)sequence;
    return LUNA_OK;
}

void luna_id_advance(luna_id_generator *gen, int64_t id)
{
    layout l = layout_of(gen->options.layout);
    int64_t ms = id >> (l.shard_bits + l.sequence_bits);
    if (ms < gen->last_ms)
        return;
    /* The whole millisecond counts as used: the id's other parts may be another worker's. */
    gen->last_ms = ms;
    gen->sequence = mask(l.sequence_bits - gen->options.worker_bits);
}

luna_id_parts luna_id_decode(const luna_id_options *options, int64_t id)
{
    layout l = layout_of(options->layout);
    unsigned counter_bits = l.sequence_bits - options->worker_bits;
    uint64_t bits = (uint64_t)id;
    return (luna_id_parts){
        .time_ms = (id >> (l.shard_bits + l.sequence_bits)) + options->epoch_ms,
        .shard = (uint32_t)(bits >> l.sequence_bits) & mask(l.shard_bits),
        .worker = (uint32_t)(bits >> counter_bits) & mask(options->worker_bits),
        .sequence = (uint32_t)bits & mask(counter_bits),
    };
}
