SELECT * FROM files, days WHERE files.id = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::text::uuid AND day = date '2024-02-29'
