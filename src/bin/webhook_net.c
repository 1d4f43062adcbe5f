/*
 * webhook_net.c: decides which addresses "eventq webhook" may send to.
 *
 * Payloads come from tenants.  So no request goes to an address of this machine, of a
 * private network, or of any other network in IANA's registries of special-purpose
 * addresses, and none to an IPv6 address that embeds such an IPv4 address.  What only the
 * local network knows to be internal (a NAT64 prefix of its own, a public address that leads
 * to a private service) is left to its firewall.
 */
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "webhook.h"

/* Networks to which no tenant may send. */
static bool
is_special_ipv4(uint32_t address)
{
	static const struct
	{
		uint32_t net;
		int bits;
	} nets[] = {
		{0x00000000, 8},  /* this host */
		{0x0a000000, 8},  /* private */
		{0x64400000, 10}, /* carrier's */
		{0x7f000000, 8},  /* loopback */
		{0xa83f8110, 32}, /* 168.63.129.16: a cloud's host, at a public address */
		{0xa9fe0000, 16}, /* link-local, and metadata of clouds */
		{0xac100000, 12}, /* private */
		{0xc0000000, 24}, /* IETF protocols */
		{0xc0000200, 24}, /* documentation: TEST-NET-1 */
		{0xc01fc400, 24}, /* AS112 */
		{0xc034c100, 24}, /* AMT */
		{0xc0586300, 24}, /* 6to4 relays */
		{0xc0a80000, 16}, /* private */
		{0xc0af3000, 24}, /* AS112 */
		{0xc6120000, 15}, /* benchmarks */
		{0xc6336400, 24}, /* TEST-NET-2 */
		{0xcb007100, 24}, /* TEST-NET-3 */
		{0xe0000000, 3},  /* multicast, reserved, broadcast */
	};

	for (int i = 0; i < lengthof(nets); i++)
	{
		if ((address ^ nets[i].net) >> (32 - nets[i].bits) == 0)
			return true;
	}
	return false;
}

static uint32_t
ipv4_at(const unsigned char *bytes)
{
	return (uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 |
		   (uint32_t) bytes[2] << 8 | bytes[3];
}

/*
 * Only global unicast, 2000::/3, which leaves out what is local, multicast, translated,
 * for discarding and for segment routing; and of it not what is set aside, nor what is a
 * tunnel to an IPv4 address, which would be reached without being judged.
 */
static bool
is_special_ipv6(const unsigned char *bytes)
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	static const unsigned char nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	static const unsigned char isatap[3] = {0x00, 0x5e, 0xfe};
	static const unsigned char as112[6] = {0x26, 0x20, 0x00, 0x4f, 0x80, 0x00};

	/* The well-known prefix of NAT64 is how an IPv6-only host reaches IPv4. */
	if (memcmp(bytes, mapped, 12) == 0 || memcmp(bytes, nat64, 12) == 0)
		return is_special_ipv4(ipv4_at(bytes + 12));
	if ((bytes[0] & 0xe0) != 0x20)
		return true;
	/* 2001::/23: Teredo, ORCHID and other protocols; 2001:db8::/32: documentation */
	if (bytes[0] == 0x20 && bytes[1] == 0x01 &&
		(bytes[2] < 0x02 || (bytes[2] == 0x0d && bytes[3] == 0xb8)))
		return true;
	if (bytes[0] == 0x20 && bytes[1] == 0x02) /* 6to4 */
		return true;
	if (bytes[0] == 0x3f && bytes[1] == 0xff && bytes[2] < 0x10)
		return true; /* 3fff::/20, documentation */
	if (memcmp(bytes, as112, sizeof(as112)) == 0)
		return true;
	/* ISATAP, under any prefix: 0000:5efe or 0200:5efe, then the IPv4 address */
	return (bytes[8] & 0xfd) == 0 && memcmp(bytes + 9, isatap, 3) == 0;
}

/* Is it an address of one of this machine's interfaces? */
static bool
is_own(const struct sockaddr *address)
{
	struct ifaddrs *all;
	bool found = false;

	if (getifaddrs(&all) != 0)
		return true; /* not known: not sent to */
	for (struct ifaddrs *i = all; i && !found; i = i->ifa_next)
	{
		if (i->ifa_addr == NULL || i->ifa_addr->sa_family != address->sa_family)
			continue;
		if (address->sa_family == AF_INET)
			found = memcmp(&((const struct sockaddr_in *) i->ifa_addr)->sin_addr,
						   &((const struct sockaddr_in *) address)->sin_addr,
						   sizeof(struct in_addr)) == 0;
		else if (address->sa_family == AF_INET6)
			found = memcmp(&((const struct sockaddr_in6 *) i->ifa_addr)->sin6_addr,
						   &((const struct sockaddr_in6 *) address)->sin6_addr,
						   sizeof(struct in6_addr)) == 0;
	}
	freeifaddrs(all);
	return found;
}

/* May a request go there, without --allow-private? */
bool
eq_webhook_is_public(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
	{
		if (is_special_ipv4(
				ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr)))
			return false;
	}
	else if (address->sa_family == AF_INET6)
	{
		if (is_special_ipv6(
				((const struct sockaddr_in6 *) address)->sin6_addr.s6_addr))
			return false;
	}
	else
		return false;
	return !is_own(address);
}
