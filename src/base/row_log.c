#include "row_log.h"

#include <string.h>

#define KEEP ((size_t)1 << 19) /* rows; twice as many are kept at the most */

void luna_row_log_deinit(luna_row_log *log)
{
    luna_buf_deinit(&log->steps);
}

static uint32_t step_at(const luna_row_log *log, size_t i)
{
    uint32_t step;
    memcpy(&step, log->steps.data + i * sizeof(step), sizeof(step));
    return step;
}

static size_t count(const luna_row_log *log)
{
    return log->steps.len / sizeof(uint32_t);
}

static void drop_half(luna_row_log *log)
{
    for (size_t i = 0; i < KEEP; i++)
        log->base += step_at(log, i);
    log->dropped += KEEP;
    log->steps.len -= KEEP * sizeof(uint32_t);
    memmove(log->steps.data, log->steps.data + KEEP * sizeof(uint32_t), log->steps.len);
}

void luna_row_log_add(luna_row_log *log, uint64_t row)
{
    uint64_t step = row - log->last;
    uint32_t kept = (uint32_t)step;
    if (count(log) == 2 * KEEP)
        drop_half(log);
    luna_buf_add(&log->steps, &kept, sizeof(kept));
    log->last = row;
    if (kept != step)
        luna_row_log_lose(log);
}

void luna_row_log_lose(luna_row_log *log)
{
    if (log->lost_at == 0)
        log->lost_at = log->dropped + count(log);
}

uint64_t luna_row_log_find(const luna_row_log *log, uint64_t n)
{
    if (n <= log->dropped || n > log->dropped + count(log) ||
        (log->lost_at > 0 && n >= log->lost_at))
        return 0;
    uint64_t row = log->base;
    for (size_t i = 0; i < n - log->dropped; i++)
        row += step_at(log, i);
    return row;
}
