#!/bin/sh
# Stands in for ethtool in unit tests: answers in the form of ethtool 6.1, and keeps what it is told in a folder, one file per
# setting. `refuse` holds the start of a command that the driver shall refuse; `flap` makes a change of rings cost the link.
state=$1
shift
[ "$1" = --json ] && shift
verb=$1
shift 2
echo "$verb $*" >>"$state/log"

value() { cat "$state/$1"; }
fail() {
    echo "netlink error: $1" >&2
    exit 1
}
if [ -e "$state/refuse" ] && [ "$verb $1" = "$(value refuse)" ]; then fail "Invalid argument"; fi

feature() {
    case $(value "$2") in
        on) active=true fixed=false ;;
        off) active=false fixed=false ;;
        fixed) active=false fixed=true ;;
    esac
    echo "\"$1\": { \"active\": $active, \"fixed\": $fixed, \"requested\": $active }"
}

rules() {
    echo "4 RX rings available"
    echo "Total $(wc -l <"$state/rules") rules"
    echo
    while read -r id ip port vlan queue; do
        printf 'Filter: %s\n\tRule Type: UDP over IPv4\n\tSrc IP addr: 0.0.0.0 mask: 255.255.255.255\n' "$id"
        printf '\tDest IP addr: %s mask: 0.0.0.0\n\tTOS: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n' "$ip"
        printf '\tDest port: %s mask: 0x0\n' "$port"
        if [ "$vlan" != 0 ]; then
            printf '\tVLAN EtherType: 0x0 mask: 0xffff\n\tVLAN: 0x%x mask: 0xf000\n' "$vlan"
            printf '\tUser-defined: 0x0 mask: 0xffffffffffffffff\n'
        fi
        printf '\tAction: Direct to queue %s\n\n' "$queue"
    done <"$state/rules"
}

case $verb in
    -g)
        printf 'Ring parameters for nic0:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t4096\n'
        printf 'Current hardware settings:\nRX:\t\t%s\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t%s\n' "$(value rx)" "$(value tx)"
        ;;
    -G)
        # As many drivers do: to the next multiple of 32.
        echo $((($2 + 31) / 32 * 32)) >"$state/$1"
        if [ -e "$state/flap" ]; then
            carrier=$(value flap)
            echo 0 >"$carrier"
            (sleep 0.3 && echo 1 >"$carrier") >/dev/null 2>&1 &
        fi
        ;;
    -l)
        printf 'Channel parameters for nic0:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t8\n'
        printf 'Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t%s\n' "$(value combined)"
        ;;
    -c)
        printf 'Coalesce parameters for nic0:\nAdaptive RX: %s  TX: n/a\nstats-block-usecs: n/a\n\n' "$(value adaptive-rx)"
        printf 'rx-usecs: %s\nrx-frames: n/a\nrx-usecs-irq: n/a\n\n' "$(value rx-usecs)"
        ;;
    -C)
        # As the driver ice does.
        if [ "$1" = rx-usecs ] && [ "$(value adaptive-rx)" = on ]; then fail "adaptive-rx is on"; fi
        echo "$2" >"$state/$1"
        ;;
    -L | -K) echo "$2" >"$state/$1" ;;
    -k)
        echo "[ { \"ifname\": \"nic0\","
        feature rx-vlan-offload rxvlan && echo ,
        feature generic-receive-offload gro && echo ,
        feature large-receive-offload lro && echo ,
        feature ntuple-filters ntuple
        echo "} ]"
        ;;
    -n) rules ;;
    -N)
        if [ "$1" = delete ]; then
            grep -v "^$2 " "$state/rules" >"$state/kept"
            mv "$state/kept" "$state/rules"
            exit 0
        fi
        if [ "$(value ntuple)" != on ]; then
            # ethtool says so and ends with status 0.
            echo "rmgr: Cannot insert RX class rule: Operation not supported" >&2
            exit 0
        fi
        # flow-type udp4 dst-ip IP dst-port PORT [vlan ID m 0xf000] action QUEUE
        ip=$4 port=$6 vlan=0
        if [ "$7" = vlan ]; then vlan=$8 && shift 4; fi
        id=$((1023 - $(wc -l <"$state/rules")))
        echo "$id $ip $port $vlan $8" >>"$state/rules"
        echo "Added rule with ID $id"
        ;;
    *) fail "unknown $verb" ;;
esac
