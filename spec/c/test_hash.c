/* The hashes equal those of a PostgreSQL 15 server (the numbers below are its answers). */
#include "hash.h"
#include "test.h"

static void int8_hashes(void)
{
    static const struct {
        int64_t value, hash;
    } GOLDEN[] = {
        { 0, INT64_C(-4403592609991167795) },
        { 1, INT64_C(5968994663651403477) },
        { -1, INT64_C(-5017072347659237694) },
        { 42, INT64_C(7363975540656877951) },
        { -42, INT64_C(6660635123915733087) },
        { INT32_MAX, INT64_C(-6050265599104649060) },
        { INT32_MIN, INT64_C(4938542303000433043) },
        { INT64_C(2147483648), INT64_C(4938542303000433043) },
        { INT64_C(-2147483649), INT64_C(-6050265599104649060) },
        { INT64_C(9007199254740993), INT64_C(-6549272185662802590) },
        { INT64_MAX, INT64_C(4938542303000433043) },
        { INT64_MIN, INT64_C(-6050265599104649060) },
    };
    for (size_t i = 0; i < sizeof(GOLDEN) / sizeof(GOLDEN[0]); i++) {
        CHECK_INT(GOLDEN[i].hash, luna_hash_int8(GOLDEN[i].value, LUNA_PARTITION_SEED));
        CHECK_INT(GOLDEN[i].hash, luna_hash_partition_int8(GOLDEN[i].value));
    }
    CHECK_INT(INT64_C(8010225493015854792), luna_hash_int8(42, 0));
}

static void byte_hashes(void)
{
    static const struct {
        const char *text;
        int64_t partition, plain; /* with the partition seed, with seed 0 */
    } GOLDEN[] = {
        { "", INT64_C(-5700645584453517373), INT64_C(-6939563903564495251) },
        { "a", INT64_C(-6705225459120232837), INT64_C(3591986179850072241) },
        { "abc", INT64_C(3628778498291917250), INT64_C(-6747756470228489321) },
        { "abcd", INT64_C(4029384952263848046), INT64_C(-1038429303365892052) },
        { "abcdefgh", INT64_C(-7754745184861941070), INT64_C(-8882191227074733005) },
        { "abcdefghi", INT64_C(-7860738947571725408), INT64_C(-3278210106038014113) },
        { "abcdefghijk", INT64_C(-2046435308545367432), INT64_C(3112909444737856467) },
        { "abcdefghijkl", INT64_C(-7876791541613377658), INT64_C(-7556637188122330412) },
        { "abcdefghijklm", INT64_C(-6785754114725280077), INT64_C(8871624171452417744) },
        { "Z\xc3\xbcrich \xe2\x98\x83", INT64_C(7397143232141675658),
          INT64_C(-1693533810476818725) },
        { "tenant-0000000000000000000000000042", INT64_C(-6637707487706154621),
          INT64_C(3986291595258810595) },
    };
    for (size_t i = 0; i < sizeof(GOLDEN) / sizeof(GOLDEN[0]); i++) {
        size_t len = strlen(GOLDEN[i].text);
        CHECK_INT(GOLDEN[i].partition, luna_hash_bytes(GOLDEN[i].text, len, LUNA_PARTITION_SEED));
        CHECK_INT(GOLDEN[i].plain, luna_hash_bytes(GOLDEN[i].text, len, 0));
    }
    static const unsigned char UUID[16] = { 0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8,
                                            0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11 };
    CHECK_INT(INT64_C(424513190990560493), luna_hash_bytes(UUID, 16, LUNA_PARTITION_SEED));
}

/* An int4's hash is that of its four bytes, little end first. */
static void small_int8_is_its_bytes(uint64_t *random)
{
    int wrong = 0;
    for (int i = 0; i < 10000; i++) {
        uint64_t bits = test_random(random), seed = test_random(random);
        int32_t value = (int32_t)bits;
        unsigned char bytes[4];
        for (int b = 0; b < 4; b++)
            bytes[b] = (unsigned char)((uint32_t)value >> (8 * b));
        wrong += luna_hash_int8(value, seed) != luna_hash_bytes(bytes, 4, seed);
    }
    CHECK_INT(0, wrong);
}

static void position_in_memory_does_not_matter(uint64_t *random)
{
    unsigned char bytes[64], moved[72];
    int wrong = 0;
    for (size_t len = 0; len <= 64; len++) {
        for (size_t i = 0; i < len; i++)
            bytes[i] = (unsigned char)test_random(random);
        for (size_t shift = 1; shift < 8; shift++) {
            memset(moved, 0xff, sizeof(moved));
            memcpy(moved + shift, bytes, len);
            wrong += luna_hash_bytes(bytes, len, 7) != luna_hash_bytes(moved + shift, len, 7);
        }
    }
    CHECK_INT(0, wrong);
}

/* Remainders that satisfies_hash_partition says for (7::int8, 'a'::text) and for one uuid. */
static void rows_combine_columns(void)
{
    uint64_t row = luna_hash_combine(0, luna_hash_int8(7, LUNA_PARTITION_SEED));
    row = luna_hash_combine(row, luna_hash_bytes("a", 1, LUNA_PARTITION_SEED));
    CHECK_INT(6143, row % 16384);
    CHECK_INT(4981, row % 16383);
    CHECK_INT(11893, row % 16381);
}

int main(void)
{
    uint64_t random = test_seed();
    int8_hashes();
    byte_hashes();
    small_int8_is_its_bytes(&random);
    position_in_memory_does_not_matter(&random);
    rows_combine_columns();
    return test_report();
}
