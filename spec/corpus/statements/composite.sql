SELECT * FROM items WHERE (region, tenant) IN (('eu', 1), ('us', $1)) AND (tenant, region) = (1, 'eu')
