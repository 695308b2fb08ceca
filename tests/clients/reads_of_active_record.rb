# Reads by ActiveRecord, outside of transactions and inside, as docs/reads.md has them.
#
# READS_OF names the way, and READS is the number of reads of table `items`.

require "active_record"

ActiveRecord::Base.establish_connection(
  adapter: "postgresql", host: "127.0.0.1", port: ENV.fetch("PGIMBAL_PORT"), database: "auto",
  username: "app", password: "app-secret", pool: 1
)

class Item < ActiveRecord::Base
end

def read(step)
  case step % 4
  when 0 then Item.find_by(id: step)
  when 1 then Item.where("name like ?", "name%").count
  when 2 then Item.exists?(name: "name 1")
  else Item.order(:id).limit(5).pluck(:name)
  end
end

ENV.fetch("READS").to_i.times do |step|
  # An application does something else, too.
  sleep 0.01
  if ENV.fetch("READS_OF") == "rails"
    read(step)
  else
    Item.transaction { read(step) }
  end
end
